// Package browser gives tests a browser: Chromium without a window, in a
// network namespace of the test's own, so that nothing a page asks for leaves
// the machine. It speaks Chromium's debugging protocol over two pipes; there is
// no port that anybody else could talk to.
package browser

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// patience bounds every wait for the browser.
const patience = 30 * time.Second

// Browser is a running Chromium with one page. It ends with its test.
type Browser struct {
	t    testing.TB
	wire *wire
	page string
}

// Start starts Chromium in a network namespace.
func Start(t testing.TB, ns *nstest.NS) *Browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("Debian's package chromium is needed: %v", err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns.Name(), chromium, "--headless", "--no-sandbox", "--disable-gpu",
		"--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
		"--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	// All processes of the browser are a group, which ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	b := &Browser{t: t}
	var errs strings.Builder
	cmd.Stderr = &errs
	b.wire, err = start(cmd)
	if err != nil {
		t.Fatalf("start %s: %v", chromium, err)
	}
	t.Cleanup(func() {
		b.wire.stop(cmd)
		if t.Failed() {
			t.Logf("chromium says:\n%s", said(errs.String()))
		}
	})
	b.attach()
	return b
}

// said is what the browser printed, without its many words on a D-Bus that is
// not there.
func said(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "dbus/") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// attach opens the page and asks to be told what happens in it.
func (b *Browser) attach() {
	b.t.Helper()
	var made struct{ TargetID, SessionID string }
	b.call("Target.createTarget", object{"url": "about:blank"}, &made)
	b.call("Target.attachToTarget", object{"targetId": made.TargetID, "flatten": true}, &made)
	b.page = made.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil, nil)
	}
}

type object = map[string]any

func (b *Browser) call(method string, params object, into any) {
	b.t.Helper()
	result, err := b.wire.call(b.page, method, params)
	if err == nil && into != nil {
		err = json.Unmarshal(result, into)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// Open shows a page and waits until it is whole.
func (b *Browser) Open(url string) {
	b.t.Helper()
	b.call("Page.navigate", object{"url": url}, nil)
	b.Wait("the page is loaded", `document.readyState === 'complete' && location.href !== 'about:blank'`)
}

// Reload loads the page anew and waits until it is whole.
func (b *Browser) Reload() {
	b.t.Helper()
	b.Eval(`void (window.beforeReload = true)`, nil)
	b.call("Page.reload", nil, nil)
	b.Wait("the page is loaded anew", `!window.beforeReload && document.readyState === 'complete'`)
}

// Size sets the size of the page's window in pixels of its style.
func (b *Browser) Size(width, height int) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// Media sets what the reader prefers: "prefers-color-scheme", "dark".
func (b *Browser) Media(feature, value string) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", object{"features": []object{{"name": feature, "value": value}}}, nil)
}

// Script allows JavaScript, or forbids it, on pages that are opened from now on.
func (b *Browser) Script(on bool) {
	b.t.Helper()
	b.call("Emulation.setScriptExecutionDisabled", object{"value": !on}, nil)
}

// Eval evaluates JavaScript in the page and reads its value.
func (b *Browser) Eval(expression string, into any) {
	b.t.Helper()
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	b.call("Runtime.evaluate", object{"expression": expression, "returnByValue": true, "awaitPromise": true}, &out)
	if out.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, out.ExceptionDetails.Exception.Description)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(out.Result.Value, into); err != nil {
		b.t.Fatalf("%s: %v: %s", expression, err, out.Result.Value)
	}
}

// Text evaluates JavaScript that makes a string.
func (b *Browser) Text(expression string) string {
	b.t.Helper()
	var s string
	b.Eval("String("+expression+")", &s)
	return s
}

// Wait waits until a condition holds.
func (b *Browser) Wait(what, condition string) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var ok bool
		b.Eval("Boolean("+condition+")", &ok)
		if ok {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s: not after %v: %s", what, patience, condition)
		}
	}
}

// Press presses keys one after the other: characters, or names as in "Enter".
func (b *Browser) Press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		down := object{"type": "rawKeyDown", "key": k}
		switch {
		case k == "Enter":
			down = object{"type": "keyDown", "key": k, "text": "\r"}
		case len(k) == 1:
			down = object{"type": "keyDown", "key": k, "text": k}
		}
		if code, ok := keyCodes[k]; ok {
			down["windowsVirtualKeyCode"] = code
			down["code"] = k
		}
		b.call("Input.dispatchKeyEvent", down, nil)
		b.call("Input.dispatchKeyEvent", object{"type": "keyUp", "key": k}, nil)
	}
}

// keyCodes are the keys for which a browser has actions of its own.
var keyCodes = map[string]int{"Enter": 13, "Escape": 27, "Backspace": 8, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40}

// Click presses the mouse on the middle of the first element that fits a
// selector.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	quoted, err := json.Marshal(selector)
	if err != nil {
		b.t.Fatal(err)
	}
	b.rest()
	var at struct{ X, Y float64 }
	b.Eval(`(() => { const e = document.querySelector(`+string(quoted)+`); e.scrollIntoView({block: 'center'});
		const r = e.getClientRects()[0]; return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()`, &at)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", object{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// rest waits until the page scrolls no more.
func (b *Browser) rest() {
	b.t.Helper()
	for end, last := time.Now().Add(patience), -1.0; time.Now().Before(end); time.Sleep(60 * time.Millisecond) {
		var now float64
		b.Eval(`scrollY`, &now)
		if now == last {
			return
		}
		last = now
	}
	b.t.Fatalf("the page still scrolls after %v", patience)
}

// Screenshot is a picture of the window, as PNG.
func (b *Browser) Screenshot() []byte {
	b.t.Helper()
	b.rest()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", object{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	return png
}

// SaveScreenshot writes a picture of the window into a file.
func (b *Browser) SaveScreenshot(path string) {
	b.t.Helper()
	if err := os.WriteFile(path, b.Screenshot(), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// Complaints are the errors and warnings on the browser's console so far.
func (b *Browser) Complaints() []string { return b.wire.events.list(complaint) }

// Requests are the addresses that the page has asked for so far, itself among
// them.
func (b *Browser) Requests() []string { return b.wire.events.list(request) }
