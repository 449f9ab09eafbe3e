package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// frame sends one Ethernet frame as it is given, whatever addresses it carries.
func frame(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("frame takes an interface and a frame in hexadecimal: %s", usage)
	}
	bytes, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Sendto(fd, bytes, 0, &unix.SockaddrLinklayer{Ifindex: iface.Index}), unix.Close(fd))
}
