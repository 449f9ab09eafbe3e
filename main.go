// Command nftnet is a Docker network driver in native nftables, and an
// inspector of any nftables ruleset.
package main

import (
	"os"

	"nftnet/internal/cli"
)

// version is set by the Makefile.
var version = "devel"

func main() { os.Exit(cli.Main(version)) }
