package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

const (
	defaultServer = "http://127.0.0.1:7766"
	// localTokenFile is what serve leaves beside its database.
	localTokenFile = "sidejob.token"
)

// serverFlags say where a command finds the running sidejob.
type serverFlags struct {
	URL string `name:"url" env:"SIDEJOB_URL" placeholder:"URL" help:"Where sidejob listens: http://HOST:PORT or unix:PATH; http://127.0.0.1:7766 if not given. The token is SIDEJOB_TOKEN, or stands in the file named by SIDEJOB_TOKEN_FILE, or in ./sidejob.token."`
}

// caller is the client of the server that the flags and the environment name.
func (f serverFlags) caller(std streams) (*caller, error) {
	token, err := callerToken(std.env)
	if err != nil {
		return nil, usage(err)
	}
	address := f.URL
	if address == "" {
		address = defaultServer
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	base, err := serverBase(address, transport)
	if err != nil {
		return nil, usage(err)
	}
	client := &http.Client{Transport: transport, CheckRedirect: notFollowed}
	return &caller{base: base, shown: address, token: token, http: client}, nil
}

// notFollowed takes a redirect as the answer: the token is for this server only.
func notFollowed(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// serverBase is what the paths of the API are put behind. It makes the transport
// dial the socket where the address names one.
func serverBase(address string, transport *http.Transport) (string, error) {
	path, isSocket := strings.CutPrefix(address, "unix:")
	if !isSocket {
		return httpBase(address)
	}
	if path == "" {
		return "", errors.New("SIDEJOB_URL names no socket: it is unix:PATH")
	}
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return "http://localhost", nil
}

// httpBase checks an address. Its errors do not show it: it may hold a password.
func httpBase(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("SIDEJOB_URL is neither http://HOST:PORT nor unix:PATH")
	case u.User != nil:
		return "", errors.New("SIDEJOB_URL holds a user or a password; sidejob takes a token, from SIDEJOB_TOKEN")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("SIDEJOB_URL has a query or a fragment; it is http://HOST:PORT")
	}
	return strings.TrimRight(address, "/"), nil
}

// callerToken is the token to show, empty where there is none: dev needs none.
func callerToken(env func(string) string) (string, error) {
	token, file := env("SIDEJOB_TOKEN"), env("SIDEJOB_TOKEN_FILE")
	if token != "" && file != "" {
		return "", errors.New("SIDEJOB_TOKEN and SIDEJOB_TOKEN_FILE are both set; set one of them")
	}
	if token == "" {
		var err error
		if token, err = tokenOfFile(file); err != nil {
			return "", err
		}
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the token holds characters that no token has; is it the right file?")
	}
	return token, nil
}

// tokenOfFile reads a token. Without a name it is the file in the current folder,
// which need not be there.
func tokenOfFile(name string) (string, error) {
	path := name
	if name == "" {
		path = localTokenFile
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && name == "" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
