package e2e

import (
	"net"
	"slices"
)

func listenTCP(addr string) (net.Listener, error) { return net.Listen("tcp4", addr) }

func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}
