package e2e

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/ruleset/rulesettest"
)

// prose is text with its line breaks and indents folded: sentences are wrapped.
func prose(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestInspectOurTable(t *testing.T) {
	w := web(t)
	w.dual(t, "other", 82)
	w.run(t, "c2", "other")
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
	out := w.nftnet(t, "inspect", "--table", "nftnet")
	text := prose(out)
	for _, want := range []string{
		"tcp port 8080 on any IPv4 address of this host goes to 10.81.0.2 port 80, container c1 of network web",
		"tcp port 8090 on 127.0.0.1 goes to 10.81.0.2 port 80, container c1 of network web",
		"udp port 5353 on any IPv6 address of this host goes to fd00:81::2 port 53, container c1 of network web",
		"By Docker's custom this chain belongs to the user",
		"counters count connections here, not packets",
		"(network other)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q", want)
		}
	}
	if !regexp.MustCompile(`tcp \. 8080 counter packets [1-9]\d* bytes [1-9]\d* comment .* : 10\.81\.0\.2 \. 80`).MatchString(out) {
		t.Error("the counter of the published port did not move")
	}
	if strings.Contains(out, "\x1b[") {
		t.Error("there are colours where no terminal is")
	}
	// Every rule of the table has a sentence: the line below it is indented more.
	lines := strings.Split(out, "\n")
	rules := 0
	for i, l := range lines {
		if regexp.MustCompile(`^     \d+  `).MatchString(l) {
			rules++
			if i+1 == len(lines) || !strings.HasPrefix(lines[i+1], "          ") {
				t.Errorf("no sentence below %q", l)
			}
		}
	}
	if rules < 20 {
		t.Errorf("%d rules are shown", rules)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// sameJSON holds our JSON of the ruleset against nft's: everything but who wrote
// it, in the same order.
func sameJSON(t *testing.T, ours, theirs string) {
	t.Helper()
	got, err := rulesettest.ParseJSON(ours)
	want, err2 := rulesettest.ParseJSON(theirs)
	if err != nil || err2 != nil || len(got) != len(want) || len(got) < 20 {
		t.Fatalf("--format json: %d objects, nft has %d: %v, %v", len(got), len(want), err, err2)
	}
	for i := range want[1:] {
		for kind, o := range want[i+1] {
			if diff := cmp.Diff(rulesettest.CommonJSON(kind, o, false), rulesettest.CommonJSON(kind, got[i+1][kind], false)); diff != "" {
				t.Errorf("--format json, object %d, a %s (-nft +nftnet):\n%s", i+1, kind, diff)
			}
		}
	}
}

func TestInspectFormats(t *testing.T) {
	w := web(t)
	if got, want := w.nftnet(t, "inspect", "--table", "inet nftnet", "--format", "nft", "--no-counters"), w.Exec(t, "nft", "-s", "list", "table", "inet", "nftnet"); sortedLines(got) != sortedLines(want) {
		t.Errorf("--format nft is not what nft lists:\n%s\nnft:\n%s", got, want)
	}
	var doc struct {
		Version int
		Tables  []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(w.nftnet(t, "inspect", "--format", "document")), &doc); err != nil || doc.Version != 1 || len(doc.Tables) == 0 {
		t.Errorf("--format document: %+v, %v", doc, err)
	}
	sameJSON(t, w.nftnet(t, "inspect", "--format", "json"), w.Exec(t, "nft", "-j", "list", "ruleset"))
	for _, row := range []struct {
		args []string
		word string
	}{
		{[]string{"--table", "nosuch"}, `there is no table "nosuch"`},
		{[]string{"--table", "x y"}, "is not allowed"},
		{[]string{"--format", "xml"}, `format "xml" is not allowed`},
		{[]string{"--color", "red"}, `color "red" is not allowed`},
		{[]string{"--width", "-1"}, "width -1 is not allowed"},
		{[]string{"extra"}, "unknown command"},
	} {
		_, err := w.Try(append([]string{binary, "inspect"}, row.args...)...)
		if err == nil || !strings.Contains(err.Error(), row.word) {
			t.Errorf("inspect %v: %v, want an error with %q", row.args, err, row.word)
		}
	}
	// Without Docker it works, and says what is missing.
	out, err := w.Sandbox.Command("env", "DOCKER_HOST=unix:///run/nothing.sock", binary, "inspect", "--table", "nftnet").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "names are missing: ") || !strings.Contains(string(out), "chain DOCKER-USER") {
		t.Errorf("without Docker: %v\n%.400s", err, out)
	}
}

// sortedLines makes listings comparable whose sets are in the order of a hash.
func sortedLines(s string) string {
	var lines []string
	for l := range strings.Lines(s) {
		lines = append(lines, strings.Trim(strings.TrimSpace(strings.Replace(l, "elements = {", "", 1)), " ,}{"))
	}
	return strings.Join(sorted(lines), "\n")
}

// TestInspectLanguage: the locale chooses the language, and a flag over it.
func TestInspectLanguage(t *testing.T) {
	w := newWorld(t)
	say := func(args ...string) string {
		return w.Exec(t, append([]string{"env", "LC_ALL=", "LC_MESSAGES=", "LANG=zh_CN.UTF-8", binary, "inspect", "--table", "nftnet"}, args...)...)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "这在连接跟踪之前。"}, {[]string{"--lang", "en"}, "That is before connection tracking."},
		{[]string{"--format", "html"}, `<html lang="zh-CN">`},
	} {
		if out := say(row.args...); !strings.Contains(prose(out), row.want) {
			t.Errorf("%v: the text lacks %q", row.args, row.want)
		}
	}
	if _, err := w.Try(binary, "inspect", "--lang", "fr"); err == nil || !strings.Contains(err.Error(), `language "fr" is not allowed: auto, en, zh are`) {
		t.Errorf("--lang fr: %v", err)
	}
}
