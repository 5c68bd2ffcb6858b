package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// webhookTolerance is how far the time of a signed event may lie from ours, both
// ways.
const webhookTolerance = 5 * time.Minute

// secretPrefix stands before a secret that is written in base64.
const secretPrefix = "whsec_"

// Why an event is not believed.
var (
	errNoSignature  = errors.New("no signature: send webhook-id, webhook-timestamp and webhook-signature, or x-trigger-signature-hmacsha256, or trigger-signature")
	errNoWebhookID  = errors.New("webhook-id is missing beside webhook-signature")
	errBadTimestamp = errors.New("webhook-timestamp is not a number of seconds since 1970")
	errTooOld       = errors.New("webhook-timestamp is more than 5 minutes ago")
	errTooNew       = errors.New("webhook-timestamp is more than 5 minutes ahead")
	errNotSigned    = errors.New("the signature does not fit the body")
)

// webhookSecrets are the secrets that may have signed an event. While one is
// rotated there are two.
type webhookSecrets []string

// readSecrets reads a comma separated list. A prefix with nothing behind it, as an
// unset variable leaves it, is no secret: anybody could sign with an empty key.
func readSecrets(list string) (secrets webhookSecrets) {
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s != "" && s != secretPrefix {
			secrets = append(secrets, s)
		}
	}
	return secrets
}

// verify proves that one of the secrets signed these very bytes. Of several
// schemes in one request the strongest decides, so that a stale event is not let
// in by a signature without a time.
func (s webhookSecrets) verify(h http.Header, body []byte, at time.Time) error {
	if h.Get("Webhook-Signature") != "" {
		return s.verifyStandard(h, body, at)
	}
	for _, name := range []string{"X-Trigger-Signature-Hmacsha256", "Trigger-Signature"} {
		if sent := h.Get(name); sent != "" {
			return s.verifyHex(sent, body)
		}
	}
	return errNoSignature
}

// verifyStandard follows the Standard Webhooks specification: the id, the time and
// the body are signed together, and the header may hold several signatures.
func (s webhookSecrets) verifyStandard(h http.Header, body []byte, at time.Time) error {
	id, stamp := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	if id == "" {
		return errNoWebhookID
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return errBadTimestamp
	}
	switch age := at.Sub(time.Unix(seconds, 0)); {
	case age > webhookTolerance:
		return errTooOld
	case age < -webhookTolerance:
		return errTooNew
	}
	made := s.signatures(standardKey, []byte(id+"."+stamp+"."), body)
	for _, one := range strings.Fields(h.Get("Webhook-Signature")) {
		encoded, isV1 := strings.CutPrefix(one, "v1,")
		sent, err := base64.StdEncoding.DecodeString(encoded)
		if isV1 && err == nil && isOneOf(made, sent) {
			return nil
		}
	}
	return errNotSigned
}

func (s webhookSecrets) verifyHex(sent string, body []byte) error {
	sum, err := hex.DecodeString(sent)
	if err != nil || !isOneOf(s.signatures(rawKey, body), sum) {
		return errNotSigned
	}
	return nil
}

// signatures are what each secret makes of the parts. They are made once for a
// request: its header may hold thousands to compare with.
func (s webhookSecrets) signatures(key func(string) []byte, parts ...[]byte) [][]byte {
	made := make([][]byte, len(s))
	for i, secret := range s {
		made[i] = signature(key(secret), parts...)
	}
	return made
}

// isOneOf compares in constant time.
func isOneOf(made [][]byte, sent []byte) bool {
	found := false
	for _, one := range made {
		if hmac.Equal(sent, one) {
			found = true
		}
	}
	return found
}

func signature(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range parts {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

func rawKey(secret string) []byte { return []byte(secret) }

// standardKey is the base64 after whsec_. Any other secret counts as its own bytes.
func standardKey(secret string) []byte {
	encoded, prefixed := strings.CutPrefix(secret, secretPrefix)
	if key, err := base64.StdEncoding.DecodeString(encoded); prefixed && err == nil {
		return key
	}
	return []byte(secret)
}
