package slowlock

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestHolderIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := New(slog.New(slog.NewTextHandler(&out, nil)), "state")
		unlock := m.Lock("quick")
		time.Sleep(limit)
		unlock()
		if out.Len() > 0 {
			t.Errorf("a holder within the limit is named: %s", out.String())
		}
		unlock = m.Lock("slow")
		time.Sleep(limit + time.Millisecond)
		unlock()
		for _, word := range []string{`msg="` + Held + `"`, "lock=state", "by=slow", "held=101ms"} {
			if !strings.Contains(out.String(), word) {
				t.Errorf("the log %q does not say %s", out.String(), word)
			}
		}
	})
}

func TestKeys(t *testing.T) {
	var k Keyed
	a := k.Lock("a")
	// Another key is free.
	k.Lock("b")()
	taken := make(chan bool)
	go func() {
		k.RLock("a")()
		taken <- true
	}()
	select {
	case <-taken:
		t.Fatal("a key was taken twice")
	default:
	}
	a()
	<-taken
	// Those who share a key hold it at the same time.
	first := k.RLock("a")
	k.RLock("a")()
	first()
	if len(k.keys) != 0 {
		t.Errorf("%d keys are kept that nobody uses", len(k.keys))
	}
}

func TestKeyExcludes(t *testing.T) {
	var k Keyed
	var all sync.WaitGroup
	n := 0
	for range 50 {
		all.Go(func() {
			defer k.Lock("a")()
			n++
		})
	}
	all.Wait()
	if n != 50 {
		t.Errorf("%d, want 50", n)
	}
}
