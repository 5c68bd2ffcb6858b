package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
)

// tokens gives the bearer tokens that open the private API; nil opens it to all, as
// under dev. It is safe from many goroutines.
type tokens func() []string

// allow compares in constant time.
func (t tokens) allow(r *http.Request) bool {
	if t == nil {
		return true
	}
	scheme, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	found := false
	for _, one := range t() {
		if subtle.ConstantTimeCompare([]byte(strings.TrimSpace(sent)), []byte(one)) == 1 {
			found = true
		}
	}
	return strings.EqualFold(scheme, "Bearer") && found
}

// fileTokens are the token in the file, made at first, and the one before it. They are
// read again for each request, so that a rotation needs no restart; while the file cannot
// be read the last ones serve.
func fileTokens(path string) (tokens, error) {
	first, err := readToken(path)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	last := []string{first}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		if is, err := tokenIn(path); err == nil {
			last = []string{is}
			if old, err := tokenIn(formerToken(path)); err == nil {
				last = append(last, old)
			}
		}
		return last
	}, nil
}

// formerToken is where the token before the last rotation stands.
func formerToken(path string) string { return path + ".former" }

// rotateToken makes a new token in the place of one that is there. The old one stays valid until the next rotation.
func rotateToken(path string) (string, error) {
	old, err := tokenIn(path)
	if err != nil {
		return "", err
	}
	fresh, err := freshToken()
	if err != nil {
		return "", err
	}
	// In this order there is no moment at which the old one opens nothing.
	if err := replaceToken(formerToken(path), old); err != nil {
		return "", err
	}
	return fresh, replaceToken(path, fresh)
}

// replaceToken puts a token into a file in one step.
func replaceToken(path, token string) error {
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write token: %w", err)
	}
	if err := writeToken(next, token); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	return nil
}

// readToken reads the token file, making it at first.
func readToken(path string) (string, error) {
	token, err := tokenIn(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	if token, err = freshToken(); err != nil {
		return "", err
	}
	return token, writeToken(path, token)
}

func tokenIn(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("token file %s is empty: remove it, and a new one is made", path)
	}
	return token, nil
}

func freshToken() (string, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return hex.EncodeToString(raw), nil
}

// writeToken makes a file that only its owner reads.
func writeToken(path, token string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	return nil
}
