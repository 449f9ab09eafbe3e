package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestWrongUse(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"", "usage"},
		{"fly", `unknown command "fly"`},
		{"http", "one target"},
		{"udp -from nowhere 192.0.2.1:53", "source address"},
		{"tcp -from 192.0.2.1.1 192.0.2.1:7", "source address"},
		{"serve -http 192.0.2.1", "missing port"},
	} {
		var out bytes.Buffer
		err := run(strings.Fields(row.args), &out)
		if err == nil || !strings.Contains(err.Error(), row.want) || out.Len() > 0 {
			t.Errorf("peer %s: %v, printed %q; want %q", row.args, err, out.String(), row.want)
		}
	}
}
