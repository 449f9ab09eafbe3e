package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// resend is how long a client waits for the answer to one datagram.
const resend = 200 * time.Millisecond

// Dialer returns a dialer that sends from the address from: an IP address, an
// IP address and port, or "" for any.
func Dialer(network, from string) (*net.Dialer, error) {
	d := &net.Dialer{}
	if from == "" {
		return d, nil
	}
	src, err := netip.ParseAddrPort(from)
	if err != nil {
		ip, err := netip.ParseAddr(from)
		if err != nil {
			return nil, fmt.Errorf("parse source address: %w", err)
		}
		src = netip.AddrPortFrom(ip, 0)
	}
	if strings.HasPrefix(network, "udp") {
		d.LocalAddr = net.UDPAddrFromAddrPort(src)
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(src)
	}
	return d, nil
}

// Get returns the body of an HTTP answer; any status but 200 is an error.
func Get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// AskUDP sends datagrams on the connected socket c until one is answered or
// ctx ends, and returns the answer. A refusal is retried too: it may come from
// a server that is about to listen.
func AskUDP(ctx context.Context, c net.Conn) ([]byte, error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := askOnce(ctx, c, buf)
		if err == nil {
			return buf[:n], nil
		}
		pause := resend
		if errors.Is(err, os.ErrDeadlineExceeded) {
			pause = 0
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

func askOnce(ctx context.Context, c net.Conn, buf []byte) (int, error) {
	deadline := time.Now().Add(resend)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := c.SetDeadline(deadline); err != nil {
		return 0, err
	}
	if _, err := c.Write([]byte("who am i\n")); err != nil {
		return 0, err
	}
	return c.Read(buf)
}

// AskTCP returns the line with which a peer greets the connection c.
func AskTCP(ctx context.Context, c net.Conn) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	b, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	return b, nil
}
