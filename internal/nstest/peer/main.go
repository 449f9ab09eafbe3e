// Command peer is the other side of a test: a server that tells each client
// which address it came from, and the clients that ask. It is static, so that
// it runs in a container that holds nothing else.
//
//	peer serve [-http :80,:81] [-udp :53] [-tcp :7] [-stream :9000]
//	peer http [-timeout 2s] [-from ip] URL
//	peer udp [-timeout 1s] [-from ip:port] ADDR
//	peer tcp [-timeout 2s] [-from ip:port] ADDR
//	peer frame INTERFACE HEX
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"nftnet/internal/nstest/wire"
)

const usage = "usage: peer serve|http|udp|tcp|frame [flags] [URL|ADDR]"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch args[0] {
	case "serve":
		return serve(args[1:], out)
	case "http":
		return ask(args[0], args[1:], 2*time.Second, askHTTP, out)
	case "frame":
		return frame(args[1:])
	case "udp":
		return ask(args[0], args[1:], time.Second, askConn("udp", wire.AskUDP), out)
	case "tcp":
		return ask(args[0], args[1:], 2*time.Second, askConn("tcp", wire.AskTCP), out)
	}
	return fmt.Errorf("unknown command %q: %s", args[0], usage)
}

// serve listens on all addresses before it prints "ready", and runs until a
// signal ends it.
func serve(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	addrs := map[string]*string{}
	for _, kind := range []string{"http", "udp", "tcp", "stream"} {
		addrs[kind] = fs.String(kind, "", "comma-separated `addresses` to serve "+kind+" on")
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	// As process 1 of a container peer has no default action for signals.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)

	failed := make(chan error)
	for kind, list := range addrs {
		for _, addr := range strings.FieldsFunc(*list, func(r rune) bool { return r == ',' }) {
			loop, err := listen(kind, addr)
			if err != nil {
				return err
			}
			go func() { failed <- loop() }()
		}
	}
	fmt.Fprintln(out, "ready")
	select {
	case <-ends:
		return nil
	case err := <-failed:
		return err
	}
}

// listen opens the socket of one server and returns the loop that serves it.
func listen(kind, addr string) (func() error, error) {
	if kind == "udp" {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, err
		}
		udp := c.(*net.UDPConn)
		return func() error { return wire.ServeUDP(udp) }, wire.WantPktinfo(udp)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	loop := map[string]func(net.Listener) error{
		"http":   wire.ServeHTTP,
		"tcp":    wire.ServeTCP,
		"stream": wire.ServeStream,
	}[kind]
	return func() error { return loop(l) }, nil
}

// asker sends one question to a target and returns the answer.
type asker func(ctx context.Context, from, target string) ([]byte, error)

func ask(name string, args []string, timeout time.Duration, do asker, out io.Writer) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.DurationVar(&timeout, "timeout", timeout, "how long to try")
	from := fs.String("from", "", "source `address`, with a port if it matters")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return fmt.Errorf("%s takes one target: %s", name, usage)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	b, err := do(ctx, *from, fs.Arg(0))
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	return err
}

func askHTTP(ctx context.Context, from, url string) ([]byte, error) {
	d, err := wire.Dialer("tcp", from)
	if err != nil {
		return nil, err
	}
	return wire.Get(ctx, &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}, url)
}

func askConn(network string, question func(context.Context, net.Conn) ([]byte, error)) asker {
	return func(ctx context.Context, from, addr string) ([]byte, error) {
		d, err := wire.Dialer(network, from)
		if err != nil {
			return nil, err
		}
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return question(ctx, c)
	}
}
