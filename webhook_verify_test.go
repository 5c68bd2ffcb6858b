package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Signatures of the tests are made here, from the words of the contract, and not by
// the code under test.

// hookSum is an HMAC-SHA256.
func hookSum(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(strings.Join(parts, "")))
	return h.Sum(nil)
}

// hookHex signs a body as the schemes do whose key is the secret's own bytes.
func hookHex(secret, body string) string { return hex.EncodeToString(hookSum([]byte(secret), body)) }

// hookV1 is one signature of a Standard Webhooks header, made with a raw key.
func hookV1(key []byte, id string, at time.Time, body string) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return "v1," + base64.StdEncoding.EncodeToString(hookSum(key, id, ".", stamp, ".", body))
}

// hookStandard is the three headers of Standard Webhooks.
func hookStandard(id string, at time.Time, signatures ...string) http.Header {
	return http.Header{
		"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {strings.Join(signatures, " ")},
	}
}

func hookHeader(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

// signingTime is when the events of these tests are signed.
func signingTime() time.Time { return time.Date(2026, 8, 20, 9, 10, 0, 0, time.UTC) }

const hookBody = `{"id":"evt_1","type":"RUN_STARTED","run":{"id":"run_1"}}`

func TestABodyIsBelievedThatASecretSigned(t *testing.T) {
	at := signingTime()
	key := []byte("sixteen byte key")
	coded := "whsec_" + base64.StdEncoding.EncodeToString(key)
	hexAlert := func(secret string) http.Header {
		return hookHeader("x-trigger-signature-hmacsha256", hookHex(secret, hookBody))
	}
	hexSeed := func(secret string) http.Header {
		return hookHeader("trigger-signature", hookHex(secret, hookBody))
	}
	standard := func(key string) http.Header {
		return hookStandard("msg_1", at, hookV1([]byte(key), "msg_1", at, hookBody))
	}
	for name, c := range map[string]struct {
		secrets string
		header  http.Header
		want    error
	}{
		"standard, whsec_ secret":                        {coded, standard(string(key)), nil},
		"standard, plain secret":                         {"plain", standard("plain"), nil},
		"standard, a secret that is base64 by chance":    {"c2VjcmV0", standard("c2VjcmV0"), nil},
		"standard, … is not decoded":                     {"c2VjcmV0", standard("secret"), errNotSigned},
		"standard, not base64 after whsec_":              {"whsec_no*base64", standard("whsec_no*base64"), nil},
		"standard, … counts with its prefix":             {"whsec_no*base64", standard("no*base64"), errNotSigned},
		"standard, unpadded base64 after whsec_":         {"whsec_c2VjcmV0cw", standard("whsec_c2VjcmV0cw"), nil},
		"standard, the text of a whsec_ secret":          {coded, standard(coded), errNotSigned},
		"standard, old secret":                           {"new, " + coded, standard(string(key)), nil},
		"standard, new secret":                           {coded + ",new", standard("new"), nil},
		"standard, a secret that was dropped":            {"new", standard(string(key)), errNotSigned},
		"alert":                                          {"plain", hexAlert("plain"), nil},
		"alert, whsec_ secret counts as its bytes":       {coded, hexAlert(coded), nil},
		"alert, … and not as what it holds":              {coded, hexAlert(string(key)), errNotSigned},
		"alert, second of three secrets":                 {"a,plain,b", hexAlert("plain"), nil},
		"alert, another secret":                          {"plain", hexAlert("other"), errNotSigned},
		"alert, upper-case hex":                          {"plain", hookHeader("x-trigger-signature-hmacsha256", strings.ToUpper(hookHex("plain", hookBody))), nil},
		"seed":                                           {"plain", hexSeed("plain"), nil},
		"seed, whsec_ secret counts as its bytes":        {coded, hexSeed(coded), nil},
		"seed, third of three secrets":                   {"a, b , plain", hexSeed("plain"), nil},
		"seed, another secret":                           {"plain", hexSeed("other"), errNotSigned},
		"seed, upper-case hex":                           {"plain", hookHeader("trigger-signature", strings.ToUpper(hookHex("plain", hookBody))), nil},
		"seed, the alert's header beside it is the same": {"plain", hookHeader("trigger-signature", hookHex("plain", hookBody), "x-trigger-signature-hmacsha256", hookHex("plain", hookBody)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readSecrets(c.secrets).verify(c.header, []byte(hookBody), at); !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestASignatureThatDoesNotFitIsRefused(t *testing.T) {
	at := signingTime()
	good := hookV1([]byte("plain"), "msg_1", at, hookBody)
	right := hookHex("plain", hookBody)
	with := func(name, value string) http.Header {
		h := hookStandard("msg_1", at, good)
		h.Set(name, value)
		return h
	}
	without := func(name string) http.Header {
		h := hookStandard("msg_1", at, good)
		h.Del(name)
		return h
	}
	urlSafe := func() string {
		sum, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(good, "v1,"))
		return "v1," + base64.RawURLEncoding.EncodeToString(sum)
	}
	for name, c := range map[string]struct {
		header http.Header
		want   error
	}{
		"no header at all":                 {http.Header{}, errNoSignature},
		"empty headers":                    {hookHeader("trigger-signature", "", "webhook-signature", ""), errNoSignature},
		"id and time without a signature":  {without("Webhook-Signature"), errNoSignature},
		"no id":                            {without("Webhook-Id"), errNoWebhookID},
		"no time":                          {without("Webhook-Timestamp"), errBadTimestamp},
		"a time that is no number":         {with("Webhook-Timestamp", "2026-08-20T09:10:00Z"), errBadTimestamp},
		"a time with a fraction":           {with("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10)+".0"), errBadTimestamp},
		"a time beyond 64 bits":            {with("Webhook-Timestamp", "92233720368547758080"), errBadTimestamp},
		"a time in the year 10000":         {with("Webhook-Timestamp", "253402300800"), errTooNew},
		"a time at their beginning":        {with("Webhook-Timestamp", "-9223372036854775808"), errTooOld},
		"milliseconds":                     {with("Webhook-Timestamp", strconv.FormatInt(at.UnixMilli(), 10)), errTooNew},
		"another id":                       {with("Webhook-Id", "msg_2"), errNotSigned},
		"another time":                     {with("Webhook-Timestamp", strconv.FormatInt(at.Unix()+1, 10)), errNotSigned},
		"the same time, written otherwise": {with("Webhook-Timestamp", "+"+strconv.FormatInt(at.Unix(), 10)), errNotSigned},
		"over another body":                {with("Webhook-Signature", hookV1([]byte("plain"), "msg_1", at, hookBody+" ")), errNotSigned},
		"over the body alone":              {with("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(hookSum([]byte("plain"), hookBody))), errNotSigned},
		"with an empty key":                {with("Webhook-Signature", hookV1(nil, "msg_1", at, hookBody)), errNotSigned},
		"no version":                       {with("Webhook-Signature", strings.TrimPrefix(good, "v1,")), errNotSigned},
		"another version":                  {with("Webhook-Signature", "v1a"+strings.TrimPrefix(good, "v1")), errNotSigned},
		"two signatures joined by a comma": {with("Webhook-Signature", "v1,AAAA,"+good), errNotSigned},
		"no base64":                        {with("Webhook-Signature", "v1,*"), errNotSigned},
		"base64 for addresses":             {with("Webhook-Signature", urlSafe()), errNotSigned},
		"half of it":                       {with("Webhook-Signature", good[:25]+"=="), errNotSigned},
		"nothing after the version":        {with("Webhook-Signature", "v1,"), errNotSigned},
		"hex in place of base64":           {with("Webhook-Signature", "v1,"+right), errNotSigned},
		"alert: over another body":         {hookHeader("x-trigger-signature-hmacsha256", hookHex("plain", hookBody+"\n")), errNotSigned},
		"alert: no hex":                    {hookHeader("x-trigger-signature-hmacsha256", right[:63]+"g"), errNotSigned},
		"alert: half of it":                {hookHeader("x-trigger-signature-hmacsha256", right[:32]), errNotSigned},
		"alert: one digit short":           {hookHeader("x-trigger-signature-hmacsha256", right[:63]), errNotSigned},
		"alert: twice":                     {hookHeader("x-trigger-signature-hmacsha256", right+right), errNotSigned},
		"alert: a prefix":                  {hookHeader("x-trigger-signature-hmacsha256", "sha256="+right), errNotSigned},
		"seed: over another body":          {hookHeader("trigger-signature", hookHex("plain", hookBody+"\n")), errNotSigned},
		"seed: wrong in the last digit":    {hookHeader("trigger-signature", right[:63]+other(right[63:])), errNotSigned},
		"seed: base64 in place of hex":     {hookHeader("trigger-signature", base64.StdEncoding.EncodeToString(hookSum([]byte("plain"), hookBody))), errNotSigned},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readSecrets("plain").verify(c.header, []byte(hookBody), at); !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// other is a hex digit that is not the given one.
func other(digit string) string {
	if digit == "0" {
		return "1"
	}
	return "0"
}

func TestTheTimeOfAnEventMayBeFiveMinutesAway(t *testing.T) {
	signed := signingTime()
	h := hookStandard("msg_1", signed, hookV1([]byte("plain"), "msg_1", signed, hookBody))
	for name, c := range map[string]struct {
		later time.Duration
		want  error
	}{
		"now":                             {0, nil},
		"five minutes old":                {5 * time.Minute, nil},
		"a millisecond older than that":   {5*time.Minute + time.Millisecond, errTooOld},
		"a day old":                       {24 * time.Hour, errTooOld},
		"five minutes ahead":              {-5 * time.Minute, nil},
		"a millisecond further than that": {-5*time.Minute - time.Millisecond, errTooNew},
		"a day ahead":                     {-24 * time.Hour, errTooNew},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readSecrets("plain").verify(h, []byte(hookBody), signed.Add(c.later)); !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestOneOfSeveralSignaturesIsEnough(t *testing.T) {
	at := signingTime()
	good := hookV1([]byte("plain"), "msg_1", at, hookBody)
	bad := hookV1([]byte("old"), "msg_1", at, hookBody)
	for _, list := range [][]string{
		{good, bad}, {bad, good}, {bad, bad, good}, {"v1a,c2lnbmVk", good}, {"v1,*", good}, {"nonsense", good}, {"v2," + good[3:], good},
	} {
		if err := readSecrets("plain").verify(hookStandard("msg_1", at, list...), []byte(hookBody), at); err != nil {
			t.Errorf("%v: got %v, want it believed", list, err)
		}
	}
	if err := readSecrets("plain").verify(hookStandard("msg_1", at, bad, bad), []byte(hookBody), at); !errors.Is(err, errNotSigned) {
		t.Errorf("two wrong ones: got %v, want %v", err, errNotSigned)
	}
}

// A header of 64 KiB holds thousands of signatures, and whoever sends it need not
// know a secret.
func TestManySignaturesCostOneHash(t *testing.T) {
	at := signingTime()
	const many = 1000
	cost := func(n int) float64 {
		h := hookStandard("msg_1", at, slices.Repeat([]string{"v1,AAAA"}, n)...)
		return testing.AllocsPerRun(1, func() {
			_ = readSecrets("plain,old").verify(h, []byte(hookBody), at)
		})
	}
	if each := (cost(many) - cost(1)) / many; each > 3 {
		t.Errorf("each further signature costs %.1f allocations, want at most those of its base64", each)
	}
}

func TestOfTwoSchemesTheOneWithATimeDecides(t *testing.T) {
	at := signingTime()
	stale := at.Add(-time.Hour)
	h := hookStandard("msg_1", stale, hookV1([]byte("plain"), "msg_1", stale, hookBody))
	h.Set("trigger-signature", hookHex("plain", hookBody))
	h.Set("x-trigger-signature-hmacsha256", hookHex("plain", hookBody))
	if err := readSecrets("plain").verify(h, []byte(hookBody), at); !errors.Is(err, errTooOld) {
		t.Errorf("stale headers beside good ones without a time: got %v, want %v", err, errTooOld)
	}
	fresh := hookStandard("msg_1", at, hookV1([]byte("plain"), "msg_1", at, hookBody))
	fresh.Set("trigger-signature", "00")
	if err := readSecrets("plain").verify(fresh, []byte(hookBody), at); err != nil {
		t.Errorf("fresh headers beside a wrong one: got %v, want them believed", err)
	}
}

func TestSecretsAreAList(t *testing.T) {
	for list, want := range map[string][]string{
		"":                   nil,
		" , ,":               nil,
		"one":                {"one"},
		" new , old,":        {"new", "old"},
		"whsec_":             nil,
		"whsec_,whsec_c2Vj":  {"whsec_c2Vj"},
		"with space inside ": {"with space inside"},
	} {
		if got := readSecrets(list); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
}

func TestTheKnownSignature(t *testing.T) {
	const want = "84cc33df716ed0b0598f07437c94069ace3730358778a592bd6bbd1423d111f3"
	body := []byte(`{"hello":"world"}`)
	for _, name := range []string{"trigger-signature", "x-trigger-signature-hmacsha256"} {
		if err := readSecrets("test-secret").verify(hookHeader(name, want), body, time.Now()); err != nil {
			t.Errorf("%s: got %v, want it believed", name, err)
		}
	}
}

// hookFile is a body of testdata.
func hookFile(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/webhook/" + name)
	if err != nil {
		t.Fatalf("read testdata: %v", err)
	}
	return body
}

// recordedHeader is the header that Trigger.dev sent with its recorded alert.
func recordedHeader(t testing.TB) http.Header {
	t.Helper()
	h := http.Header{}
	for line := range bytes.Lines(hookFile(t, "alert-run-failed.headers")) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
		h.Set(name, value)
	}
	return h
}

const recordedSecret = "example-webhook-secret"

func TestTheRecordedAlertIsBelieved(t *testing.T) {
	body := hookFile(t, "alert-run-failed.json")
	if err := readSecrets("other,"+recordedSecret).verify(recordedHeader(t), body, time.Now()); err != nil {
		t.Errorf("got %v, want it believed", err)
	}
	body[len(body)-2] ^= 1
	if err := readSecrets(recordedSecret).verify(recordedHeader(t), body, time.Now()); !errors.Is(err, errNotSigned) {
		t.Errorf("with one bit changed: got %v, want %v", err, errNotSigned)
	}
}

func TestStandardWebhooksAgrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := []byte("a key of twenty-four b.!")
		secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
		reference, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatalf("make the reference: %v", err)
		}
		raw, err := standardwebhooks.NewWebhookRaw([]byte("plain secret"))
		if err != nil {
			t.Fatalf("make the reference: %v", err)
		}
		time.Sleep(time.Hour) // any time but the bubble's first
		for _, body := range []string{"", "{}", hookBody, "\xff\x00", strings.Repeat("x", 100_000)} {
			for name, c := range map[string]struct {
				oracle *standardwebhooks.Webhook
				secret string
				key    []byte
			}{"whsec_ secret": {reference, secret, key}, "plain secret": {raw, "plain secret", []byte("plain secret")}} {
				at := time.Now()
				theirs, err := c.oracle.Sign("msg_é.1", at, []byte(body))
				if err != nil {
					t.Fatalf("sign: %v", err)
				}
				h := hookStandard("msg_é.1", at, theirs)
				if err := readSecrets(c.secret).verify(h, []byte(body), now()); err != nil {
					t.Errorf("%s, %d bytes: we do not believe the reference: %v", name, len(body), err)
				}
				if err := c.oracle.Verify([]byte(body), h); err != nil {
					t.Errorf("%s, %d bytes: the reference does not believe itself: %v", name, len(body), err)
				}
				ours := "v1," + base64.StdEncoding.EncodeToString(
					signature(standardKey(c.secret), []byte("msg_é.1."+strconv.FormatInt(at.Unix(), 10)+"."), []byte(body)))
				if err := c.oracle.Verify([]byte(body), hookStandard("msg_é.1", at, "v1,AAAA", ours)); err != nil {
					t.Errorf("%s, %d bytes: the reference does not believe us: %v", name, len(body), err)
				}
				for _, later := range []time.Duration{-301, -300, 0, 300, 301} {
					signed := at.Add(-later * time.Second)
					h := hookStandard("msg_1", signed, hookV1(c.key, "msg_1", signed, body))
					believed, want := readSecrets(c.secret).verify(h, []byte(body), now()) == nil, c.oracle.Verify([]byte(body), h) == nil
					if believed != want {
						t.Errorf("%s, %d s old: got believed %v, the reference says %v", name, later, believed, want)
					}
				}
			}
		}
	})
}
