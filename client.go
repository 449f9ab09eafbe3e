package main

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

	"nftnet/plugin"
)

// askTimeout bounds how long the driver may take to answer.
const askTimeout = 10 * time.Second

// askDriver sends a request to the running driver and reads its answer: a GET,
// or with a body a POST.
func askDriver(ctx context.Context, socket, path string, body, into any) error {
	client := http.Client{Timeout: askTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := driverRequest(ctx, path, body)
	if err != nil {
		return fmt.Errorf("ask the driver: %w", err)
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf(`"nftnet serve" is not running on %s: start it ("systemctl start nftnet" where it is installed), or name its socket by --socket`, socket)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("no right to speak to the driver on %s: root has it", socket)
	case err != nil:
		return fmt.Errorf("the driver does not answer on %s: %w", socket, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		return refusal(socket, resp.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("read the driver's answer: %w", err)
	}
	return nil
}

func driverRequest(ctx context.Context, path string, body any) (*http.Request, error) {
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

// refusal is the driver's own error where the answer has one. One without comes
// from a driver that does not know the request, or from another program.
func refusal(socket, status string, text []byte) error {
	var r plugin.Refusal
	if json.Unmarshal(text, &r) == nil && r.Err != "" {
		return errors.New(r.Err)
	}
	return fmt.Errorf("the program on %s is no nftnet of this version: it answers %s", socket, status)
}
