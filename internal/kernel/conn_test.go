package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

// table is inet t of the given chains and sets.
func table(name string, sets []rs.Set, chains ...rs.Chain) rs.Ruleset {
	return rs.Ruleset{Tables: []rs.Table{{Family: rs.FamilyInet, Name: name, Sets: sets, Chains: chains}}}
}

func mustApply(t testing.TB, conn *kernel.Conn, batch rs.Batch) {
	t.Helper()
	if err := conn.Apply(batch); err != nil {
		t.Fatalf("%+v", err)
	}
}

func TestErrorNamesTheChangeThatWasRefused(t *testing.T) {
	ports := rs.Set{Name: "ports", Key: rs.TypeInetService}
	filter := rs.Chain{Name: "in", Base: &rs.Base{Type: "filter", Hook: rs.HookInput, Policy: rs.Accept}}
	good := rs.NewRule(rs.Is(rs.THDport, rs.Port(22)), rs.Verdict{Kind: rs.Accept})
	tests := []struct {
		name string
		// bad is what is wrong with the change.
		bad func(*rs.Change)
		// text are words that the error must say.
		text  string
		errno syscall.Errno
	}{
		{"a jump to a chain that is not there", func(c *rs.Change) {
			r := rs.NewRule(rs.Is(rs.THDport, rs.Port(23)), rs.JumpTo("nowhere"))
			c.Rule = &r
		}, "add rule inet t in th dport 23 jump nowhere", syscall.ENOENT},
		{"a set that is not there", func(c *rs.Change) {
			r := rs.NewRule(rs.In(rs.THDport, "nothing"), rs.Verdict{Kind: rs.Drop}).Because("net=0123")
			c.Rule = &r
		}, `add rule inet t in th dport @nothing drop comment "net=0123"`, syscall.ENOENT},
		{"a set where a map is needed", func(c *rs.Change) {
			r := rs.NewRule(rs.VMap{Key: rs.THDport, Map: "ports"})
			c.Rule = &r
		}, "add rule inet t in th dport vmap @ports", syscall.EINVAL},
		{"masquerade in a filter chain", func(c *rs.Change) {
			r := rs.NewRule(rs.Masquerade{})
			c.Rule = &r
		}, "add rule inet t in masquerade", syscall.EOPNOTSUPP},
		{"a base chain defined a second time", func(c *rs.Change) {
			second := filter
			second.Base = &rs.Base{Type: "filter", Hook: rs.HookOutput, Policy: rs.Accept}
			c.Chain, c.Rule = &second, nil
		}, "add chain inet t in", syscall.EOPNOTSUPP},
		{"a set defined a second time", func(c *rs.Change) {
			second := rs.Set{Name: "ports", Key: rs.TypeIPv4Addr}
			c.Chain, c.Rule, c.Set = nil, nil, &second
		}, "add set inet t ports", syscall.EEXIST},
		{"an element that jumps to a chain that is not there", func(c *rs.Change) {
			set := rs.Set{Name: "verdicts", Key: rs.TypeInetService, Data: rs.TypeVerdict}
			c.Chain, c.Rule, c.Set = nil, nil, &set
			c.Elements = []rs.Element{{Key: rs.Port(1), Verdict: rs.JumpTo("nowhere")}}
		}, "add element inet t verdicts", syscall.ENOENT},
		{"a chain in use", func(c *rs.Change) {
			c.Verb, c.Chain, c.Rule = rs.Delete, &rs.Chain{Name: "used"}, nil
		}, "delete chain inet t used", syscall.EBUSY},
		{"a table that is not there", func(c *rs.Change) {
			c.Verb, c.Table, c.Chain, c.Rule = rs.Delete, "none", nil, nil
		}, "delete table inet none", syscall.ENOENT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.NewNS(t, "refused")
			conn := open(t, ns)
			user := filter
			user.Rules = []rs.Rule{rs.NewRule(rs.JumpTo("used"))}
			verdicts := rs.Set{Name: "verdicts", Key: rs.TypeInetService, Data: rs.TypeVerdict}
			mustApply(t, conn, rs.Diff(rs.Ruleset{}, table("t", []rs.Set{ports, verdicts}, user, rs.Chain{Name: "used"})))
			before := list(t, ns)

			ok := rs.Change{Verb: rs.Add, Family: rs.FamilyInet, Table: "t", Chain: &filter, Rule: &good}
			bad := ok
			tt.bad(&bad)
			err := conn.Apply(rs.Batch{ok, ok, bad, ok})

			var refused *kernel.ApplyError
			if !errors.As(err, &refused) || refused.Failed[0].Index != 2 {
				t.Fatalf("got %+v, want change 2 refused", err)
			}
			if !errors.Is(err, tt.errno) {
				t.Errorf("got %v, want %v", err, tt.errno)
			}
			want := "nftables refused to " + tt.text + ": " + tt.errno.Error()
			if err.Error() != want || fmt.Sprintf("%v", err) != want {
				t.Errorf("error is\n%v, want\n%s", err, want)
			}
			var marked []int
			for i, line := range strings.Split(fmt.Sprintf("%+v", err), "\n")[1:] {
				if strings.Contains(line, "<-- "+tt.errno.Error()) {
					marked = append(marked, i)
				}
			}
			if len(marked) != len(refused.Failed) || marked[0] != 2 {
				t.Errorf("%%+v marks lines %v, want line 2:\n%+v", marked, err)
			}
			if after := list(t, ns); after != before {
				t.Errorf("something of the batch was done:\n%s", after)
			}
			mustApply(t, conn, rs.Batch{ok})
		})
	}
}

func TestNothingIsSentThatCannotBeWritten(t *testing.T) {
	ns := nstest.NewNS(t, "encode")
	conn := open(t, ns)
	chain := rs.Chain{Name: "c"}
	change := func(parts ...rs.Part) rs.Change {
		r := rs.NewRule(parts...)
		return rs.Change{Verb: rs.Add, Family: rs.FamilyInet, Table: "t", Chain: &chain, Rule: &r}
	}
	set := func(s rs.Set) rs.Change { return rs.Change{Verb: rs.Add, Family: rs.FamilyInet, Table: "t", Set: &s} }
	element := func(s rs.Set, e rs.Element) rs.Change {
		c := set(s)
		c.Elements = []rs.Element{e}
		return c
	}
	base := rs.Chain{Name: "b", Base: &rs.Base{Type: "filter", Hook: "somewhere", Policy: rs.Accept}}
	port, mark := rs.Port(1), rs.HostUint32(rs.TypeMark, 1)
	for _, c := range []rs.Change{
		change(rs.Opaque{Name: "quota"}), change(rs.Reject{With: "a smile"}), change(rs.Verdict{Kind: "wait"}),
		change(rs.Is(rs.THDport, mark)), change(rs.Is(rs.Meta{Key: "colour"}, mark)), change(rs.Is(rs.Fib{Result: "colour"}, mark)),
		change(rs.Has(rs.Ct{Key: rs.CtState}, port)), change(rs.InRange{Left: rs.THDport, From: port, To: mark}),
		change(rs.InPrefix{Left: rs.IPSaddr, Op: rs.Less, Prefix: netip.MustParsePrefix("10.0.0.0/8")}),
		change(rs.InPrefix{Left: rs.IPSaddr, Prefix: netip.MustParsePrefix("fd00::/8")}),
		change(rs.Redirect{Flags: []string{"often"}}), change(rs.Masquerade{Flags: []string{"often"}}),
		change(rs.NAT{Kind: rs.DNAT, Family: "ip", Port: port, Flags: []string{"often"}}),
		change(rs.NAT{Kind: rs.DNAT, Port: port}), change(rs.NAT{Kind: rs.DNAT, Family: "ip6", Addr: rs.Addr(netip.MustParseAddr("10.0.0.1"))}),
		set(rs.Set{Name: "s", Key: rs.TypeInteger}), set(rs.Set{Name: "s", Key: "colour"}),
		set(rs.Set{Name: "s", Key: rs.TypeMark, Flags: []string{"shiny"}}),
		set(rs.Set{Name: "s", Key: rs.TypeMark, Anonymous: true}), set(rs.Set{Name: "s", Key: rs.TypeMark, Data: "counter"}),
		element(rs.Set{Name: "s", Key: rs.TypeMark}, rs.Element{Key: port}),
		element(rs.Set{Name: "s", Key: rs.TypeInetService}, rs.Element{Key: port, End: rs.Port(9)}),
		element(rs.Set{Name: "s", Key: rs.TypeInetService}, rs.Element{Key: port, Extra: []rs.Part{rs.Limit{}}}),
		element(rs.Set{Name: "s", Key: rs.TypeInetService}, rs.Element{Key: port, Counter: &rs.Counter{}}),
		{Verb: rs.Add, Family: rs.FamilyInet, Table: "t", Chain: &base}, {Verb: rs.Flush, Family: rs.FamilyInet, Table: "t"},
		{Verb: rs.Add, Family: "decnet", Table: "t"},
	} {
		err := conn.Apply(rs.Batch{{Verb: rs.Add, Family: rs.FamilyInet, Table: "t"}, c})
		var refused *kernel.ApplyError
		if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), c.Object()) {
			t.Errorf("%s: got %v, want an error of the encoder that names the change", c, err)
		}
	}
	if left := list(t, ns); left != "\n" {
		t.Errorf("something was sent:\n%s", left)
	}
}

func TestLargeBatch(t *testing.T) {
	const elements, rules = 20000, 2000
	conn := open(t, nstest.NewNS(t, "large"))
	set := rs.Set{Name: "s", Key: rs.ConcatTypes(rs.TypeIPv4Addr, rs.TypeInetService), Data: rs.TypeVerdict, Counter: true}
	chain := rs.Chain{Name: "c"}
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range elements {
		addr = addr.Next()
		set.Elements = append(set.Elements, rs.Element{
			Key: rs.Concat(rs.Addr(addr), rs.Port(uint16(i))), Verdict: rs.GotoChain("c"),
			Comment: strings.Repeat("x", 128),
		})
	}
	for i := range rules {
		chain.Rules = append(chain.Rules, rs.NewRule(rs.Is(rs.THDport, rs.Port(uint16(i))), rs.Counter{}).Because(fmt.Sprint(i)))
	}
	want := table("t", []rs.Set{set}, chain)
	mustApply(t, conn, rs.Diff(rs.Ruleset{}, want))
	got := readAll(t, conn)
	if left := rs.Diff(got, want); len(left) > 0 {
		t.Errorf("%d changes left to do, first %.300s", len(left), left)
	}
	if s := got.Tables[0].Sets[0]; len(s.Elements) != elements {
		t.Errorf("%d elements, want %d", len(s.Elements), elements)
	}
	mustApply(t, conn, rs.Diff(got, rs.Ruleset{}))

	// One bad change among very many is found as well.
	bad := rs.NewRule(rs.JumpTo("nowhere"))
	batch := append(rs.Diff(rs.Ruleset{}, want), rs.Change{
		Verb: rs.Add, Family: rs.FamilyInet, Table: "t", Chain: &chain, Rule: &bad,
	})
	var refused *kernel.ApplyError
	if err := conn.Apply(batch); !errors.As(err, &refused) || refused.Failed[0].Index != len(batch)-1 {
		t.Errorf("got %v, want the last change refused", err)
	}
	if left := readAll(t, conn); len(left.Tables) != 0 {
		t.Errorf("something of the batch was done")
	}
}

func TestGenerationChangesWithTheRuleset(t *testing.T) {
	ns := nstest.NewNS(t, "gen")
	conn := open(t, ns)
	generation := func() uint32 {
		t.Helper()
		g, err := conn.Generation()
		if err != nil {
			t.Fatal(err)
		}
		// The kernel would say that we made it, whoever did.
		if g.PID != 0 || g.Process != "" {
			t.Errorf("the current generation claims to know who made it: %+v", g)
		}
		return g.ID
	}
	first := generation()
	if again := generation(); again != first {
		t.Errorf("the generation changed from %d to %d by itself", first, again)
	}
	mustApply(t, conn, rs.Diff(rs.Ruleset{}, table("t", nil)))
	second := generation()
	load(t, ns, "add table ip other")
	if third := generation(); second == first || third == second {
		t.Errorf("generations %d, %d after our change, %d after nft's", first, second, third)
	}
}

// TestReadSeesOneMoment reads while another connection replaces the contents of
// two tables in one step, again and again: a read must never see one table
// before and one after.
func TestReadSeesOneMoment(t *testing.T) {
	ns := nstest.NewNS(t, "moment")
	reader, writer := open(t, ns), open(t, ns)
	// The sets are large enough for a dump of several messages.
	state := func(port uint16) rs.Ruleset {
		set := rs.Set{Name: "s", Key: rs.TypeInetService}
		for i := range uint16(2500) {
			set.Elements = append(set.Elements, rs.Element{Key: rs.Port(2*i + port)})
		}
		chain := rs.Chain{Name: "c", Rules: []rs.Rule{rs.NewRule(rs.Is(rs.THDport, rs.Port(port)))}}
		return rs.Ruleset{Tables: append(table("a", []rs.Set{set}, chain).Tables, table("b", []rs.Set{set}, chain).Tables...)}
	}
	even, odd := state(0), state(1)
	mustApply(t, writer, rs.Diff(rs.Ruleset{}, even))
	forth, back := rs.Diff(even, odd), rs.Diff(odd, even)

	done := make(chan error, 1)
	go func() {
		defer close(done)
		for range 10 {
			if err := errors.Join(writer.Apply(forth), writer.Apply(back)); err != nil {
				done <- err
				return
			}
		}
	}()
	reads, given := 0, 0
	for writing := true; writing; reads++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			writing = false
		default:
		}
		got, err := reader.Read(kernel.Filter{})
		if err != nil {
			// To give up is honest, a mixture is not.
			given++
			continue
		}
		if l, r := rs.Diff(got, even), rs.Diff(got, odd); len(l) > 0 && len(r) > 0 {
			t.Fatalf("read %d is neither of the two states:\n%.600s\n\n%.600s", reads, l, r)
		}
	}
	t.Logf("%d reads, %d of them given up", reads, given)
	if given == reads {
		t.Error("every read was given up")
	}
}

func TestConnectionServesManyGoroutines(t *testing.T) {
	conn := open(t, nstest.NewNS(t, "many"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprint("t", i)
			want := table(name, nil, rs.Chain{Name: "c", Rules: []rs.Rule{rs.NewRule(rs.Is(rs.THDport, rs.Port(uint16(i))))}})
			for range 10 {
				bad := rs.Batch{{Verb: rs.Delete, Family: rs.FamilyInet, Table: "none" + name}}
				var refused *kernel.ApplyError
				if err := conn.Apply(bad); !errors.As(err, &refused) || refused.Batch[0].Table != "none"+name {
					t.Errorf("%s: got %v", name, err)
				}
				if err := conn.Apply(rs.Diff(rs.Ruleset{}, want)); err != nil {
					t.Errorf("%+v", err)
				}
				got, err := conn.Read(kernel.Filter{Family: rs.FamilyInet, Table: name})
				if left := rs.Diff(got, want); err != nil || len(left) > 0 || len(got.Tables) != 1 {
					t.Errorf("%s: read %v, %v", name, got, err)
				}
				if _, err := conn.Generation(); err != nil {
					t.Error(err)
				}
				if err := conn.Apply(rs.Diff(got, rs.Ruleset{})); err != nil {
					t.Errorf("%+v", err)
				}
			}
		})
	}
	wg.Wait()
	if left := readAll(t, conn); len(left.Tables) != 0 {
		t.Errorf("left over:\n%s", left)
	}
}

func TestClosedConnectionSaysSo(t *testing.T) {
	ns := nstest.NewNS(t, "closed")
	conn, err := kernel.OpenAt(int(ns.Handle()))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Apply(rs.Batch{{Verb: rs.Add, Family: rs.FamilyInet, Table: "t"}}); err == nil {
		t.Error("Apply on a closed connection succeeds")
	}
	if _, err := conn.Read(kernel.Filter{}); err == nil {
		t.Error("Read on a closed connection succeeds")
	}
	if _, err := conn.Generation(); err == nil {
		t.Error("Generation on a closed connection succeeds")
	}
}

func TestOpenAtSomethingElse(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if conn, err := kernel.OpenAt(int(f.Fd())); err == nil {
		t.Errorf("opened the network namespace %s", os.DevNull)
		conn.Close()
	}
}

func TestReadOfATableThatIsNotThere(t *testing.T) {
	conn := open(t, nstest.NewNS(t, "none"))
	got, err := conn.Read(kernel.Filter{Family: rs.FamilyInet, Table: "none"})
	if err != nil || len(got.Tables) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}
