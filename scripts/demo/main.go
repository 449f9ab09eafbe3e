// Command demo shows nftnet's main job with a real Docker engine, in a sandbox
// that it makes and removes: a network, a published port reached from
// everywhere, isolation, and the annotated ruleset. It ends with an error where
// anything does not go as it says.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo PATH-OF-NFTNET")
		os.Exit(2)
	}
	binary, err := filepath.Abs(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = nstest.Outside(ctx, os.Stderr, func(t testing.TB) { show(t, binary) })
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Println("\n# the sandbox is gone: no namespace, process, mount or file is left")
}

// stage is the sandbox, and what a user in it can type.
type stage struct {
	t      testing.TB
	box    *nstest.Sandbox
	engine *nstest.Engine
	nftnet string
}

func show(t testing.TB, binary string) {
	s := stage{t: t, box: nstest.NewSandbox(t), nftnet: binary}
	s.title("a Docker host in a sandbox of its own, with the driver and an engine")
	s.echo("host", "nftnet serve &")
	driver := s.box.Start(t, "nftnet", binary, "serve")
	driver.WaitFor(t, "msg=serving", 10*time.Second)
	fmt.Println(strings.TrimSpace(driver.Log()))
	s.engine = s.box.StartEngine(t)
	s.docker("version", "--format", "Docker Engine {{.Server.Version}}")
	image := s.engine.Image(t)

	s.title("a network, and a container that publishes a port")
	s.docker("network", "create", "-d", "nftnet", "--ipv6", "--subnet", "10.81.0.0/24", "--subnet", "fd00:81::/64", "web")
	s.docker("run", "-d", "--name", "hello", "--network", "web", "-p", "8080:80", image, "/peer", "serve", "-http", ":80,:81")
	s.engine.WaitLog(t, "hello", "ready")
	s.run("host", s.box.Try, "nftnet", "ports")

	s.title("a neighbour on the LAN reaches it; the container sees the neighbour's own address")
	s.curl("neighbour", s.box.LAN.Try, "http://192.0.2.1:8080/", `"client":"192.0.2.2"`)
	s.curl("neighbour", s.box.LAN.Try, "http://[fd00:192::1]:8080/", `"client":"fd00:192::2"`)

	s.title("the host reaches it by its own address and by localhost")
	for _, host := range []string{"192.0.2.1", "127.0.0.1", "[::1]", "[fd00:192::1]"} {
		s.curl("host", s.box.Try, "http://"+host+":8080/", `"client"`)
	}

	s.title("the container reaches out; its address is masqueraded")
	nstest.Serve(t, s.box.LAN, ":80", "")
	s.peer("hello", "http://192.0.2.2/", `"client":"192.0.2.1"`)

	s.title("a container of a second network reaches the published port, but not the container")
	s.docker("network", "create", "-d", "nftnet", "--subnet", "10.82.0.0/24", "other")
	s.docker("run", "-d", "--name", "guest", "--network", "other", image, "/peer", "serve", "-http", ":80")
	s.engine.WaitLog(t, "guest", "ready")
	s.peer("guest", "http://192.0.2.1:8080/", `"client"`)
	s.blocked("guest", "http://10.81.0.2:80/")

	s.title("the live ruleset, explained")
	s.run("host", s.box.Try, "nftnet", "inspect", "--table", "nftnet")

	s.title("everything is taken back")
	s.docker("rm", "-f", "hello", "guest")
	s.docker("network", "rm", "web", "other")
	s.run("host", s.box.Try, "nftnet", "ports")
}

func (s stage) title(text string) { fmt.Printf("\n# %s\n", text) }

func (s stage) echo(where, command string) { fmt.Printf("%s$ %s\n", where, command) }

type runner func(args ...string) (string, error)

// run shows a command and its output, and ends the demo where it fails.
func (s stage) run(where string, try runner, args ...string) string {
	s.t.Helper()
	s.echo(where, quoted(args))
	if args[0] == "nftnet" {
		// The engine of a sandbox has a socket of its own.
		args = append([]string{"env", "DOCKER_HOST=unix://" + s.engine.Socket, s.nftnet}, args[1:]...)
	}
	out, err := try(args...)
	fmt.Println(strings.TrimRight(out, "\n"))
	if err != nil {
		s.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (s stage) docker(args ...string) {
	s.t.Helper()
	s.run("host", func(args ...string) (string, error) {
		out, stderr, err := s.engine.TryDocker(args[1:]...)
		return out + stderr, err
	}, append([]string{"docker"}, args...)...)
}

func (s stage) curl(where string, try runner, url, want string) {
	s.t.Helper()
	out := s.run(where, try, "curl", "-sS", "-g", "-m", "5", url)
	s.expect(out, want)
}

func (s stage) expect(out, want string) {
	s.t.Helper()
	if !strings.Contains(out, want) {
		s.t.Fatalf("the answer lacks %s", want)
	}
}

func (s stage) inContainer(container, url string) runner {
	return func(...string) (string, error) {
		out, stderr, err := s.engine.TryDocker("exec", container, "/peer", "http", "-timeout", "2s", url)
		return out + stderr, err
	}
}

func (s stage) peer(container, url, want string) {
	s.t.Helper()
	s.expect(s.run(container, s.inContainer(container, url), "/peer", "http", url), want)
}

// blocked shows a request that must get no answer.
func (s stage) blocked(container, url string) {
	s.t.Helper()
	s.echo(container, "/peer http "+url)
	out, err := s.inContainer(container, url)()
	fmt.Println(strings.TrimSpace(out))
	if err == nil {
		s.t.Fatalf("%s answers container %s, it must not", url, container)
	}
}

// quoted writes a command as a user would type it.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " {}[]*?$&;|<>()'\"") {
			a = "'" + a + "'"
		}
		words[i] = a
	}
	return strings.Join(words, " ")
}
