package host

import (
	"os"
	"testing"

	"nftnet/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
