package browser

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// kind is what an event tells of.
type kind int

const (
	complaint kind = iota
	request
)

// events keeps what happened in the page.
type events struct {
	mu    sync.Mutex
	lists map[kind][]string
}

func (e *events) add(k kind, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lists == nil {
		e.lists = map[kind][]string{}
	}
	e.lists[k] = append(e.lists[k], text)
}

func (e *events) list(k kind) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.lists[k])
}

// note keeps an event that tests ask about.
func (e *events) note(m message) {
	var p struct {
		Request          struct{ URL string }
		Type             string
		Args             json.RawMessage
		Entry            struct{ Level, Text string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	switch m.Method {
	case "Network.requestWillBeSent", "Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown":
	default:
		return
	}
	if err := json.Unmarshal(m.Params, &p); err != nil {
		e.add(complaint, fmt.Sprintf("%s: %v", m.Method, err))
		return
	}
	serious := func(level string) bool { return level == "error" || level == "warning" }
	switch {
	case m.Method == "Network.requestWillBeSent":
		e.add(request, p.Request.URL)
	case m.Method == "Runtime.exceptionThrown":
		e.add(complaint, p.ExceptionDetails.Text+" "+p.ExceptionDetails.Exception.Description)
	case m.Method == "Log.entryAdded" && serious(p.Entry.Level):
		e.add(complaint, p.Entry.Text)
	case m.Method == "Runtime.consoleAPICalled" && serious(p.Type):
		e.add(complaint, string(p.Args))
	}
}
