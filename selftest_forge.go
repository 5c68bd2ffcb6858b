package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// forgeries is what became of false events that were answered.
type forgeries struct {
	mu    sync.Mutex
	count int
	wrong []string
}

// forgedWord stands in every false event.
const forgedWord = "selftest-forged"

// falseEvent is an event of which something may be changed.
type falseEvent struct {
	ID   string         `json:"id"`
	Type string         `json:"type"`
	Run  map[string]any `json:"run"`
}

// forge sends false events until the round is over.
func (p *provingRelay) forge(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		if random.IntN(2) == 0 {
			p.forgeSignature(ctx, random)
		} else {
			p.forgeRun(ctx, random)
		}
		pause(ctx, time.Duration(random.IntN(20))*time.Millisecond)
	}
}

// forgeSignature sends a false end of a real run that nobody has signed so. It must be
// answered 401.
func (p *provingRelay) forgeSignature(ctx context.Context, random *rand.Rand) {
	from, ok := p.lastSeen(random)
	if !ok {
		return
	}
	body := falsified(from, random, "RUN_COMPLETED", "COMPLETED", forgedWord)
	how, header := badSignature(random, from, body)
	status, answer, err := p.send(ctx, relayed{header: header, body: body})
	if err == nil {
		p.forged.note(status == http.StatusUnauthorized, "an event with %s was answered %d %s", how, status, answer)
	}
}

// badSignature signs the body as somebody would who does not know the secret.
func badSignature(random *rand.Rand, from relayed, body []byte) (how string, h http.Header) {
	h = http.Header{}
	switch random.IntN(5) {
	case 0:
		return "no signature", h
	case 1:
		h.Set("Trigger-Signature", hex.EncodeToString(signature([]byte("guess"), body)))
		return "another secret's trigger-signature", h
	case 2:
		h.Set("X-Trigger-Signature-Hmacsha256", from.header.Get("Trigger-Signature"))
		return "the signature of another event", h
	case 3:
		signStandard(h, "guess", eventID(random), body, now())
		return "another secret's webhook-signature", h
	}
	signStandard(h, provingSecret, eventID(random), body, now().Add(-time.Hour))
	return "a signature of an hour ago", h
}

func signed(body []byte) relayed {
	h := http.Header{}
	h.Set("Trigger-Signature", hex.EncodeToString(signature([]byte(provingSecret), body)))
	return relayed{header: h, body: body}
}

// forgeRun sends a well signed end of a run that does not exist and claims to be that
// of an acknowledged job, in all that is no secret. It must select no row.
func (p *provingRelay) forgeRun(ctx context.Context, random *rand.Rand) {
	id, j := p.host.recent(random.Int64N(6))
	if id == 0 {
		return
	}
	body := written(falseEvent{ID: eventID(random), Type: "RUN_COMPLETED", Run: map[string]any{
		"id": fmt.Sprintf("run_%x", random.Uint64()), "status": "COMPLETED", "taskIdentifier": j.task, "output": forgedWord,
		"metadata": map[string]any{"dbJobId": strconv.FormatInt(id, 10), "tag": j.tag}, "idempotencyKey": "job-" + eventID(random),
		"tags": []string{j.tag, rowTagPrefix + strconv.FormatInt(id, 10)}, "attemptCount": 1,
	}})
	status, answer, err := p.send(ctx, signed(body))
	if err != nil || status == http.StatusServiceUnavailable {
		return
	}
	var reply heardReply
	_ = json.Unmarshal(answer, &reply) // what cannot be read has no success
	p.forged.note(status == http.StatusOK && reply.Success && !reply.Matched, "the event of a made-up run for job %d was answered %d %s", id, status, answer)
}

// forgeEnd sends a well signed failure of a run that has just begun. The row may
// believe it until Trigger.dev is asked; the rows tell in the end.
func (p *provingRelay) forgeEnd(ctx context.Context, begun relayed, random *rand.Rand) {
	status, answer, err := p.send(ctx, signed(falsified(begun, random, "RUN_FAILED", "FAILED", nil)))
	if err == nil && status != http.StatusServiceUnavailable {
		p.forged.note(status == http.StatusOK, "a well signed event was answered %d %s", status, answer)
	}
}

// begins tells whether the event is the first of its run.
func (ev relayed) begins() bool { return bytes.Contains(ev.body, []byte(`"type":"RUN_STARTED"`)) }

// falsified is the event with another end.
func falsified(from relayed, random *rand.Rand, kind, status string, output any) []byte {
	var ev falseEvent
	_ = json.Unmarshal(from.body, &ev) // the emulator's own
	ev.ID, ev.Type = eventID(random), kind
	ev.Run["status"], ev.Run["output"], ev.Run["error"] = status, output, map[string]any{"message": forgedWord}
	return written(ev)
}

func eventID(random *rand.Rand) string { return fmt.Sprintf("forged-%x", random.Uint64()) }

func written(ev falseEvent) []byte {
	body, _ := json.Marshal(ev) // texts and numbers alone
	return body
}

func (f *forgeries) note(ok bool, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if !ok {
		f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
	}
}

// disbelieved is the clause on false events: each was answered as it must be, and no
// row says what they said.
func (p *provingRelay) disbelieved(rows map[int64]provingRow) clause {
	p.forged.mu.Lock()
	defer p.forged.mu.Unlock()
	c := clause{name: "    false events change nothing", checked: p.forged.count, broken: p.forged.wrong}
	for id, row := range rows {
		if bytes.Contains(row.Result, []byte(forgedWord)) {
			c.broken = append(c.broken, fmt.Sprintf("job %d has the result of a false event: %s", id, row.Result))
		}
	}
	return c
}
