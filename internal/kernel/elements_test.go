package kernel_test

import (
	"testing"

	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

// TestSetIsReadWholeWhileTheKernelRehashesIt: right after many elements were
// added the kernel lists some twice and leaves out as many.
func TestSetIsReadWholeWhileTheKernelRehashesIt(t *testing.T) {
	conn := open(t, nstest.NewNS(t, "rehash"))
	s := rs.Set{Name: "s", Key: rs.ConcatTypes(rs.TypeInetProto, rs.TypeInetService)}
	for i := range 20000 {
		s.Elements = append(s.Elements, rs.Element{Key: rs.Concat(rs.Proto(rs.ProtoTCP), rs.Port(uint16(i)))})
	}
	want := table("t", []rs.Set{s})
	for range 20 {
		mustApply(t, conn, rs.Diff(rs.Ruleset{}, want))
		got := readAll(t, conn)
		seen := map[rs.Value]bool{}
		for _, e := range got.Tables[0].Sets[0].Elements {
			seen[e.Key] = true
		}
		if n := len(got.Tables[0].Sets[0].Elements); n != len(s.Elements) || len(seen) != n {
			t.Errorf("%d elements are read, %d of them different, want %d", n, len(seen), len(s.Elements))
		}
		mustApply(t, conn, rs.Diff(got, rs.Ruleset{}))
	}
}
