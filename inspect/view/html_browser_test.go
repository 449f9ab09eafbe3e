package view_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/nstest"
	"nftnet/internal/nstest/browser"
	"nftnet/internal/ruleset"
)

// reader is somebody who reads a page.
type reader struct {
	*browser.Browser
	t *testing.T
}

func newReader(t *testing.T) reader {
	t.Helper()
	return reader{browser.Start(t, nstest.NewNS(t, "browser")), t}
}

// types types into what has the focus.
func (r reader) types(text string) {
	r.t.Helper()
	for _, c := range text {
		r.Press(string(c))
	}
}

func (r reader) count(selector string) int {
	r.t.Helper()
	var n int
	r.Eval(fmt.Sprintf(`[...document.querySelectorAll(%s)].filter(e => e.checkVisibility()).length`, js(selector)), &n)
	return n
}

// at waits until an object is chosen and in view.
func (r reader) at(id string) {
	r.t.Helper()
	r.Wait(id+" is chosen, and in view", fmt.Sprintf(`(() => {
		const e = document.getElementById(%s), item = e.closest('.r, .e, .head'), box = e.getBoundingClientRect();
		const bar = document.querySelector('.bar').getBoundingClientRect().bottom;
		return item.getAttribute('aria-current') === 'true' && document.querySelectorAll('main [aria-current]').length === 1
			&& box.top >= bar && box.bottom <= innerHeight;
	})()`, js(id)))
}

// fits asserts that nothing is wider than the window.
func (r reader) fits(what string) {
	r.t.Helper()
	var wide []string
	r.Eval(`(() => {
		const width = document.documentElement.clientWidth;
		if (document.scrollingElement.scrollWidth <= width) return [];
		return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML.slice(0, 200)).slice(0, 3);
	})()`, &wide)
	if len(wide) > 0 {
		r.t.Errorf("%s: too wide: %s", what, strings.Join(wide, "\n"))
	}
}

// still asserts that the page asked for nothing, and that nothing went wrong.
func (r reader) still() {
	r.t.Helper()
	for _, c := range r.Complaints() {
		r.t.Errorf("the browser complains: %s", c)
	}
	for _, url := range r.Requests() {
		if !strings.HasPrefix(url, "file:///") && !strings.HasPrefix(url, "data:") {
			r.t.Errorf("the page asks for %s", url)
		}
	}
}

func js(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestPageInBrowser(t *testing.T) {
	r := newReader(t)
	r.Size(1400, 900)
	r.Media("prefers-color-scheme", "light")
	r.Open(page(t, hostModel(hostNames()), view.Options{}, view.Page{Host: "gate"}))
	r.search()
	r.keys()
	r.looks()
	r.widths()
	r.still()
}

// search narrows and marks, and goes from hit to hit.
func (r reader) search() {
	all := r.count(".r")
	r.Press("/")
	r.types("dport publish4_at")
	r.Wait("the rules are fewer", fmt.Sprintf(`[...document.querySelectorAll('.r')].filter(e => !e.hidden).length < %d && document.querySelector('#hits').textContent !== ''`, all))
	if n := r.count(".r"); n == 0 || n > 5 {
		r.t.Errorf("%d of %d rules are shown", n, all)
	}
	if n := r.count(".r:not(:has(.c a[href$='publish4_at']))"); n > 0 {
		r.t.Errorf("%d rules are shown that the words are not in", n)
	}
	var marks int
	r.Eval(`CSS.highlights.get('hit').size`, &marks)
	if marks == 0 {
		r.t.Error("nothing is marked")
	}
	r.Press("Enter")
	r.Wait("the first hit is chosen", `/^1 of \d+$/.test(document.querySelector('#hits').textContent) && document.querySelector('main [aria-current]')`)
	first := r.Text(`document.querySelector('main [aria-current]').outerHTML`)
	r.Press("Enter")
	r.Wait("the next hit is chosen", `document.querySelector('#hits').textContent.startsWith('2 of')`)
	if r.Text(`document.querySelector('main [aria-current]').outerHTML`) == first {
		r.t.Error("the second hit is the first")
	}
	r.Press("Escape")
	r.Wait("all rules are back", fmt.Sprintf(`[...document.querySelectorAll('.r')].filter(e => !e.closest('[hidden]')).length === %d && document.activeElement !== document.querySelector('#q')`, all))
	r.Press("/")
	r.types("no such words")
	r.Wait("nothing is found", `document.querySelector('#hits').textContent === 'nothing found' && [...document.querySelectorAll('.table')].every(t => t.hidden)`)
	r.Press("Escape")
	r.Wait("all tables are back", `[...document.querySelectorAll('.table')].every(t => !t.hidden)`)
}

// keys lead from rule to rule and along a jump, and back.
func (r reader) keys() {
	r.Eval(`location.hash = '#rule.inet.nftnet.FORWARD.1'`, nil)
	r.at("rule.inet.nftnet.FORWARD.1")
	r.Press("j")
	r.at("rule.inet.nftnet.FORWARD.2")
	r.Press("ArrowDown")
	r.at("rule.inet.nftnet.FORWARD.3")
	r.Press("k", "ArrowUp")
	r.at("rule.inet.nftnet.FORWARD.1")
	r.Press("Enter")
	r.at("chain.inet.nftnet.DOCKER-USER")
	if hash := r.Text(`location.hash`); hash != "#chain.inet.nftnet.DOCKER-USER" {
		r.t.Errorf("the address ends in %s", hash)
	}
	if place := r.Text(`document.querySelector('.tree [aria-current]').textContent`); place != "DOCKER-USER" {
		r.t.Errorf("the contents say that we are at %s", place)
	}
	r.Press("j")
	r.at("rule.inet.nftnet.DOCKER-USER.1")
	r.Press("b")
	r.at("rule.inet.nftnet.FORWARD.1")
	r.Click(`.hook a[href="#chain.ip.filter.FORWARD"]`)
	r.at("chain.ip.filter.FORWARD")
	r.Press("Backspace")
	r.Click(`[id="rule.inet.nftnet.FORWARD.3"] .n`)
	r.Wait("the link is told", `document.querySelector('#said').textContent !== ''`)
	r.at("rule.inet.nftnet.FORWARD.3")
	r.Press("?")
	r.Wait("the help is open", `document.querySelector('#help').open`)
	r.fits("help")
	r.Press("Escape")
	r.Wait("the help is closed", `!document.querySelector('#help').open`)
	r.Press("Tab")
	r.Wait("the outline shows where the focus is", `document.activeElement.matches('a:focus-visible')`)
}

// looks change by keys and by buttons.
func (r reader) looks() {
	ground := func() string { return r.Text(`getComputedStyle(document.documentElement).backgroundColor`) }
	light := ground()
	r.contrast("light")
	r.Click("#theme")
	r.contrast("dark")
	dark := ground()
	if dark == light {
		r.t.Errorf("light and dark are both %s", light)
	}
	r.Press("t")
	if again := ground(); again != light {
		r.t.Errorf("light is %s, and then %s", light, again)
	}
	r.Press("t")
	r.Reload()
	r.Wait("the choice is kept", `document.querySelector('#theme').textContent === 'Light'`)
	if kept := ground(); kept != dark {
		r.t.Errorf("the choice is not kept: %s, was %s", kept, dark)
	}
	r.Press("t")
	r.Press("e")
	if n := r.count(".items .x"); n != 0 {
		r.t.Errorf("%d explanations are shown", n)
	}
	r.Click("#notes")
	if n := r.count(".items .x"); n == 0 {
		r.t.Error("no explanation is shown")
	}
	r.Click(`label:has(#family-6)`)
	if n := r.count(`.hook a[href="#chain.ip.filter.FORWARD"]`); n != 0 {
		r.t.Error("a chain of IPv4 is shown for IPv6")
	}
	r.Click(`label:has(#family-all)`)
}

// contrast asserts that all text can be read: level AA of WCAG asks for 4.5 to 1.
func (r reader) contrast(theme string) {
	r.t.Helper()
	var faint []string
	r.Eval(`(() => {
		const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
		const rgba = (color) => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = color; probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data]; };
		const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
		const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } };
		const faint = new Set();
		for (const e of document.querySelectorAll('body *')) {
			if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
			const [a, b] = [light(rgba(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
			const ratio = (a + .05) / (b + .05);
			if (ratio < 4.5) faint.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
		}
		return [...faint];
	})()`, &faint)
	if len(faint) > 0 {
		r.t.Errorf("%s: too faint: %v", theme, faint)
	}
}

// widths are those of a phone and of a desk.
func (r reader) widths() {
	for _, width := range []int{360, 800, 1100, 1600} {
		r.Size(width, 900)
		r.fits(fmt.Sprint(width))
	}
}

// TestPageWithoutScript: what the page says does not depend on JavaScript.
func TestPageWithoutScript(t *testing.T) {
	r := newReader(t)
	r.Size(1000, 800)
	r.Script(false)
	r.Open(page(t, hostModel(hostNames()), view.Options{}, view.Page{}) + "#rule.inet.nftnet.DOCKER.7")
	if r.count(".js") != 0 || r.count(".r") == 0 || r.count(".hook li") == 0 {
		t.Errorf("tools %d, rules %d, chains at hooks %d", r.count(".js"), r.count(".r"), r.count(".hook li"))
	}
	r.Wait("the rule of the address is in view", `(() => { const b = document.getElementById('rule.inet.nftnet.DOCKER.7').getBoundingClientRect(); return b.top > 40 && b.bottom < 800; })()`)
	r.Click(`[id="rule.inet.nftnet.FORWARD.1"] a.go`)
	r.Wait("the jump is followed", `location.hash === '#chain.inet.nftnet.DOCKER-USER'`)
	r.still()
}

// TestHostilePage: nothing of what names and comments say is done.
func TestHostilePage(t *testing.T) {
	r := newReader(t)
	r.Size(360, 700)
	r.Open(page(t, evilModel(), view.Options{}, view.Page{Host: evil}))
	r.Eval(`document.querySelectorAll('main a').forEach(a => a.click())`, nil)
	if n := r.count("img, main script"); n != 0 {
		t.Errorf("%d elements come from names", n)
	}
	r.fits("hostile names")
	r.still()
}

// TestLargePage opens a page of 10,000 rules.
func TestLargePage(t *testing.T) {
	r := newReader(t)
	r.Size(1400, 900)
	rules := make([]ruleset.Rule, 10000)
	for i := range rules {
		rules[i] = ruleset.Rule{Handle: uint64(i + 10), Comment: fmt.Sprint("customer ", i), Parts: []ruleset.Part{
			ruleset.Is(ruleset.IPSaddr, ruleset.Addr(addr4(i))), ruleset.Is(ruleset.THDport, ruleset.Port(uint16(i))),
			ruleset.Counter{Packets: uint64(i), Bytes: uint64(60 * i)}, ruleset.JumpTo("tail"),
		}}
	}
	m := inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{{Family: ruleset.FamilyInet, Name: "t", Chains: []ruleset.Chain{
		{Name: "input", Rules: rules, Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookInput, Policy: ruleset.Drop}},
		{Name: "tail", Rules: []ruleset.Rule{ruleset.NewRule(ruleset.Verdict{Kind: ruleset.Accept})}},
	}}}}, inspect.Names{})
	begin := time.Now()
	url := page(t, m, view.Options{}, view.Page{})
	written := time.Now()
	r.Open(url)
	opened := time.Now()
	r.Press("/")
	r.types("Customer 198.18.38.148")
	r.Press("Enter")
	r.at("rule.inet.t.input.9877")
	found := time.Now()
	t.Logf("written in %v, opened in %v, found in %v", written.Sub(begin), opened.Sub(written), found.Sub(opened))
	r.Press("Escape", "j")
	r.at("rule.inet.t.input.9878")
	r.Press("Enter")
	r.at("chain.inet.t.tail")
	r.still()
}

// addr4 is an IPv4 address for each number.
func addr4(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }
