package port

import (
	"fmt"
	"os"
	"testing"

	"nftnet/internal/nstest"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(driverPorts); text != "" {
		if err := drive(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(nstest.Main(m))
}
