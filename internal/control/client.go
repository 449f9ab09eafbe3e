package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// timeout bounds how long the driver may take to answer.
const timeout = 10 * time.Second

// Client asks the driver that listens on Socket, a path. Its errors say which
// socket failed and what to do, or are the driver's own words.
type Client struct {
	Socket string
}

// Ports lists the published ports, by port number.
func (c Client) Ports(ctx context.Context) ([]Port, error) {
	return ask[[]Port](ctx, c, PathPorts, nil)
}

// Redirects lists the redirects, by port.
func (c Client) Redirects(ctx context.Context) ([]Redirect, error) {
	return ask[[]Redirect](ctx, c, PathRedirects, nil)
}

// AddRedirect adds a redirect, and returns it with what the driver filled in.
func (c Client) AddRedirect(ctx context.Context, r Redirect) (Redirect, error) {
	return ask[Redirect](ctx, c, PathRedirects, r)
}

// RemoveRedirect removes the redirect of a name.
func (c Client) RemoveRedirect(ctx context.Context, name string) error {
	_, err := ask[struct{}](ctx, c, PathRemoveRedirect, RedirectName{Name: name})
	return err
}

// ask sends a request to the driver and reads its answer: a GET, or with a body
// a POST.
func ask[Answer any](ctx context.Context, c Client, path string, body any) (Answer, error) {
	var answer Answer
	req, err := request(ctx, path, body)
	if err != nil {
		return answer, fmt.Errorf("ask the driver: %w", err)
	}
	resp, err := c.http().Do(req)
	if err != nil {
		return answer, c.unreachable(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		return answer, c.refusal(resp.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		return answer, fmt.Errorf("read the driver's answer: %w", err)
	}
	return answer, nil
}

func (c Client) http() *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.Socket)
		},
	}}
}

func request(ctx context.Context, path string, body any) (*http.Request, error) {
	url := "http://nftnet" + path
	if body == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
}

// unreachable says why there is no answer, and what to do.
func (c Client) unreachable(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf(`"nftnet serve" is not running on %s: start it ("systemctl start nftnet" where it is installed), or name its socket by --socket`, c.Socket)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("no right to speak to the driver on %s: root has it", c.Socket)
	}
	return fmt.Errorf("the driver does not answer on %s: %w", c.Socket, err)
}

// refusal is the driver's own error where the answer has one. One without comes
// from a driver that does not know the request, or from another program.
func (c Client) refusal(status string, text []byte) error {
	var r Refusal
	if json.Unmarshal(text, &r) == nil && r.Err != "" {
		return errors.New(r.Err)
	}
	return fmt.Errorf("the program on %s is no nftnet of this version: it answers %s", c.Socket, status)
}
