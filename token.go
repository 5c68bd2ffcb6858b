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
)

// tokens are the bearer tokens that open the private API; nil opens it to all, as
// under dev.
type tokens []string

// allow compares in constant time.
func (t tokens) allow(r *http.Request) bool {
	if t == nil {
		return true
	}
	scheme, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	found := false
	for _, one := range t {
		if subtle.ConstantTimeCompare([]byte(strings.TrimSpace(sent)), []byte(one)) == 1 {
			found = true
		}
	}
	return strings.EqualFold(scheme, "Bearer") && found
}

// readToken reads the token file, making it at first.
func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeToken(path)
	}
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("token file %s is empty: remove it, and a new one is made", path)
	}
	return token, nil
}

// makeToken writes a fresh token to a file that only its owner reads.
func makeToken(path string) (string, error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	token := hex.EncodeToString(raw)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	return token, nil
}
