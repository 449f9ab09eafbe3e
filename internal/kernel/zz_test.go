package kernel
import ("testing";"fmt";"os";"time";"golang.org/x/sys/unix"; rs "nftnet/internal/ruleset")
func TestZZ(t *testing.T){
 f,err:=os.Open("/run/netns/kq"); if err!=nil{t.Skip()}
 c,_:=OpenAt(int(f.Fd())); w,_:=OpenAt(int(f.Fd()))
 state:=func(p uint16) rs.Ruleset { set := rs.Set{Name: "s", Key: rs.TypeInetService}
		for i := range uint16(2500) { set.Elements = append(set.Elements, rs.Element{Key: rs.Port(2*i + p)}) }
	return rs.Ruleset{Tables: []rs.Table{{Family: rs.FamilyInet, Name: "a", Sets: []rs.Set{set}}}}}
 even,odd:=state(0),state(1)
 w.Apply(rs.Diff(rs.Ruleset{},even))
 start:=time.Now()
 var log []string
 go func(){ for i:=range 60 { a:=time.Since(start); if i%2==0 {w.Apply(rs.Diff(even,odd))} else {w.Apply(rs.Diff(odd,even))} ; g,_:=w.Generation(); log=append(log, fmt.Sprint("apply ",i," ",a," - ",time.Since(start)," gen ",g.ID)) }; w.Close() }()
 dump:=func() (n int, msgs int, par [2]int, miss int) {
	var m message
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, "a")
	m.str(unix.NFTA_SET_ELEM_LIST_SET, "s")
	seen:=map[uint64]bool{}
	c.sock.dump(unix.NFT_MSG_GETSETELEM, 1, m.b, func(_ uint8, as attrs, _ []byte) error {
		msgs++
		elems, _ := as.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for _, e := range elems.nested() { n++; k:=elementValue(rs.TypeInetService,e.nested(),unix.NFTA_SET_ELEM_KEY); u,_:=k.Uint(); par[u%2]++; seen[u]=true }
		return nil
	})
	p:=uint64(0); if par[1]>par[0] {p=1}
	miss=-1
	for i:=range uint64(2500) { if !seen[2*i+p] { miss=int(i); break } }
	return
 }
 bad:=0
 for i:=range 3000 {
   g1,_:=c.sock.generation()
   a:=time.Since(start)
   n,ms,par,miss:=dump()
   b:=time.Since(start)
   g2,_:=c.sock.generation()
   if g1.ID==g2.ID && (n!=2500|| par[0]*par[1]>0) { bad++; fmt.Println(i,"n",n,"msgs",ms,par,"firstmissing",miss,"gen",g1.ID, a, b);
     for range 4 { n,ms,par,miss:=dump(); g,_:=c.sock.generation(); fmt.Println("   again n",n,"msgs",ms,par,"firstmissing",miss,"gen",g.ID, time.Since(start)) }
     if bad>2 {break} }
 }
 time.Sleep(time.Second)
 for _,l:=range log { fmt.Println(l) }
}
