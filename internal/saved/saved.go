// Package saved reads rulesets from files, as nft writes and reads them.
//
// It has no parser of its own. The nft program loads the file into a network
// namespace that is empty and goes when it was read; from there it is read like
// a live one. So a file means what the nft of this host makes of it, and this
// host's own ruleset is out of reach.
package saved

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
)

// ErrUnprivileged says that the process may not make network namespaces.
var ErrUnprivileged = errors.New("no right to make a network namespace")

// Read reads the ruleset of a file, in nft's text or JSON; "-" is input.
func Read(ctx context.Context, file string, input io.Reader) (ruleset.Ruleset, error) {
	name, text, err := content(file, input)
	if err != nil {
		return ruleset.Ruleset{}, err
	}
	return Load(ctx, name, text)
}

func content(file string, input io.Reader) (name string, text []byte, err error) {
	if file == "-" {
		text, err = io.ReadAll(input)
		return "standard input", text, err
	}
	text, err = os.ReadFile(file)
	if err != nil {
		return "", nil, fmt.Errorf("ruleset file: %w", err)
	}
	return file, text, nil
}

// Load reads the ruleset that text holds; errors call it by name.
func Load(ctx context.Context, name string, text []byte) (ruleset.Ruleset, error) {
	if isJSON(text) {
		// nft passes over what is no JSON.
		var any json.RawMessage
		if err := json.Unmarshal(text, &any); err != nil {
			return ruleset.Ruleset{}, fmt.Errorf("%s is no JSON, though it begins so: %w", name, err)
		}
	}
	if ownedByLoader(text) {
		return ruleset.Ruleset{}, fmt.Errorf("%s has a table with the flag owner and without persist, which goes as soon as nft has loaded it: "+
			"take the flag out of a copy to see it", name)
	}
	program, err := exec.LookPath("nft")
	if err != nil {
		return ruleset.Ruleset{}, fmt.Errorf("reading %s needs the nft program, which is not installed: %w", name, exec.ErrNotFound)
	}
	text, marks := takeOut(text)
	conn, err := load(ctx, program, name, text)
	if err != nil {
		return ruleset.Ruleset{}, err
	}
	defer conn.Close()
	out, err := conn.Read(kernel.Filter{})
	putBack(out, marks)
	return out, err
}

// patience bounds how long nft's output is waited for after its end.
const patience = time.Second

// load runs nft in a network namespace of its own, and connects to that. The
// namespace stays until the connection is closed, although nft ends.
func load(ctx context.Context, program, name string, text []byte) (*kernel.Conn, error) {
	cmd := exec.CommandContext(ctx, program, arguments(text)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.WaitDelay = patience
	var says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &says, &says
	// nft waits for its input: until then its namespace can be had by its number.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	err = cmd.Start()
	switch {
	case errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("reading %s: %w: %w", name, ErrUnprivileged, err)
	case err != nil:
		return nil, fmt.Errorf("run nft: %w", err)
	}
	conn, openErr := kernel.OpenNamespace(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	// Where nft ends before it has read all, its message tells more.
	_, _ = stdin.Write(text)
	_ = stdin.Close()
	err = cmd.Wait()
	if err == nil && openErr == nil {
		return conn, nil
	}
	if openErr == nil {
		_ = conn.Close()
	}
	if err != nil {
		return nil, refusal(name, says.String(), err)
	}
	return nil, openErr
}

// isJSON tells nft's JSON, which is an object, from its text, which is not.
func isJSON(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) }

var (
	comments = regexp.MustCompile(`(?m)#.*$`)
	// flagLists are the flags of anything, in nft's text and in its JSON.
	flagLists = regexp.MustCompile(`\bflags(?:[ \t]+[a-z, \t]+|"\s*:\s*(?:\[[^\]]*\]|"[a-z]*"))`)
	ownerFlag = regexp.MustCompile(`\bowner\b`)
	stays     = regexp.MustCompile(`\bpersist\b`)
)

// ownedByLoader says whether there is a table that the kernel removes when the
// program ends that made it: what is left would be less than the file says.
func ownedByLoader(text []byte) bool {
	if !isJSON(text) {
		text = comments.ReplaceAll(text, nil)
	}
	return slices.ContainsFunc(flagLists.FindAll(text, -1), func(flags []byte) bool {
		return ownerFlag.Match(flags) && !stays.Match(flags)
	})
}

func arguments(text []byte) []string {
	if isJSON(text) {
		return []string{"-j", "-f", "-"}
	}
	return []string{"-f", "-"}
}

// refusal is what nft says about a file, with the file's name where nft has that
// of its input.
func refusal(name, says string, err error) error {
	says = strings.TrimSpace(strings.ReplaceAll(says, "/dev/stdin:", name+":"))
	if says == "" {
		return fmt.Errorf("nft refuses %s: %w", name, err)
	}
	return fmt.Errorf("nft refuses %s:\n%s", name, says)
}
