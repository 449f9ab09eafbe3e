package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
)

// writing is what the file holds after n changes of childWrites.
func writing(n int) desired.State {
	s := desired.New()
	for i := max(0, n-7); i < n; i++ {
		id := fmt.Sprint("e", i)
		s.Endpoints[id] = large(id, i%90)
	}
	return s
}

// childWrites changes the file for ever, and writes the number of each change
// that is on disk.
func childWrites(args []string) int {
	s, err := Open(args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	n := 0
	have, err := s.Load()
	for err == nil && !cmp.Equal(have, writing(n), netipValues) {
		if n++; n > 1e6 {
			fmt.Println("the file holds no state that was ever saved")
			return 1
		}
	}
	fmt.Println(n)
	for ; err == nil; n++ {
		err = s.Save(writing(n), writing(n+1))
		fmt.Println(n + 1)
	}
	fmt.Println(err)
	return 1
}

// TestKilled kills the process that writes at any moment: what it was told to
// be saved is there, and at most one change more.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	random := rand.New(rand.NewPCG(74, 1))
	for round := range 40 {
		c := start(t, "writes", path)
		var told int
		if _, err := fmt.Sscan(c.line(t), &told); err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(time.Duration(random.IntN(20_000))*time.Microsecond, func() { _ = c.cmd.Process.Kill() })
		for c.lines.Scan() {
			if n, err := fmt.Sscan(c.lines.Text(), &told); n != 1 || err != nil {
				t.Fatalf("the process wrote %q", c.lines.Text())
			}
		}
		stop.Stop()
		c.kill()
		s := opened(t, path)
		if o := s.Origin(); o.Found != Read || o.Why != "" {
			t.Fatalf("round %d: origin %+v", round, o)
		}
		got := load(t, s)
		if !cmp.Equal(got, writing(told), netipValues) && !cmp.Equal(got, writing(told+1), netipValues) {
			var ids []string
			for id := range got.Endpoints {
				ids = append(ids, id)
			}
			t.Fatalf("round %d: %d changes were saved, the file holds %s", round, told, strings.Join(ids, " "))
		}
		closed(t, s)
	}
}
