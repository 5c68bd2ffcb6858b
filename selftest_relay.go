package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// eventWay is how events come from Trigger.dev.
type eventWay int

const (
	eventsStraight eventWay = iota
	eventsLost              // half of them
	eventsDoubled           // each comes twice at once, and again in the next round
	eventsLate              // and in any order, many in a later round
	eventsForged            // as sent, and false ones beside them
)

// provingRelay stands between the emulator and the server's webhook. What it does to
// the events is the round's trouble.
type provingRelay struct {
	url    string // of the relay itself
	to     string // the server's webhook
	host   *provingHost
	client *http.Client
	server *http.Server
	work   sync.WaitGroup // what goes on behind the answers
	life   context.Context
	end    context.CancelFunc

	mu     sync.Mutex
	random *rand.Rand
	way    eventWay
	late   []relayed          // to be delivered some time, in any order
	seen   []relayed          // the last ones
	over   context.CancelFunc // ends the forging
	forged forgeries
}

// relayed is an event as the emulator has sent it, or as it is made up.
type relayed struct {
	header http.Header
	body   []byte
}

// seenAtMost is how many of the last events are kept.
const seenAtMost = 50

// startRelay serves on a port of its own until stop.
func startRelay(host *provingHost, seed uint64) (*provingRelay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &provingRelay{
		url: "http://" + l.Addr().String() + webhookPath, to: host.base + webhookPath, host: host,
		// The emulator gives up after 5 s.
		client: &http.Client{Timeout: 4 * time.Second},
		random: rand.New(rand.NewPCG(seed, 1<<32)), over: func() {},
	}
	p.life, p.end = context.WithCancel(context.Background())
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	p.work.Go(func() { _ = p.server.Serve(l) }) // it ends with stop
	return p, nil
}

func (p *provingRelay) stop() {
	p.mu.Lock()
	p.end() // nothing is begun any more
	p.mu.Unlock()
	_ = p.server.Close() // nobody listens any more
	p.work.Wait()
}

// ServeHTTP takes an event from the emulator. Only one that goes straight on is
// answered as the server answers it.
func (p *provingRelay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	ev := relayed{header: r.Header.Clone(), body: body}
	if !p.goesOn(ev) {
		return
	}
	status, _, err := p.send(r.Context(), ev)
	if err != nil {
		status = http.StatusBadGateway
	}
	w.WriteHeader(status)
}

// goesOn tells whether the event is to be sent on now, and does with it what the
// round wants.
func (p *provingRelay) goesOn(ev relayed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		return false
	}
	p.seen = append(p.seen, ev)
	p.seen = p.seen[max(0, len(p.seen)-seenAtMost):]
	switch p.way {
	case eventsLost:
		return p.random.IntN(2) == 0
	case eventsDoubled:
		p.late = append(p.late, ev)
		p.work.Go(func() { _, _, _ = p.send(p.life, ev) }) // the other one counts
	case eventsLate:
		p.late = append(p.late, ev)
		if p.random.IntN(4) == 0 {
			late := p.takeLate()
			p.work.Go(func() { p.sendAll(p.life, late) })
		}
		return false
	case eventsForged:
		if ev.begins() {
			random := rand.New(rand.NewPCG(p.random.Uint64(), 0))
			p.work.Go(func() { p.forgeEnd(p.life, ev, random) })
		}
	}
	return true
}

// takeLate takes what was kept back, shuffled.
func (p *provingRelay) takeLate() []relayed {
	late := p.late
	p.late = nil
	p.random.Shuffle(len(late), func(i, k int) { late[i], late[k] = late[k], late[i] })
	return late
}

// sendAll sends one event after the other. One that does not get through is lost.
func (p *provingRelay) sendAll(ctx context.Context, list []relayed) {
	for _, ev := range list {
		_, _, _ = p.send(ctx, ev)
	}
}

// send brings an event to the server. An error says that it has not answered.
func (p *provingRelay) send(ctx context.Context, ev relayed) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.to, bytes.NewReader(ev.body))
	if err != nil {
		return 0, nil, err
	}
	for _, name := range []string{"Content-Type", "Trigger-Signature", "X-Trigger-Signature-Hmacsha256", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		if value := ev.header.Get(name); value != "" {
			r.Header.Set(name, value)
		}
	}
	res, err := p.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// pass begins a round in which events come so. Those that were kept back in the round
// before come now, when the next life has begun.
func (p *provingRelay) pass(way eventWay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over()
	p.over, p.way = func() {}, way
	if late := p.takeLate(); len(late) > 0 {
		p.work.Go(func() { p.sendAll(p.life, late) })
	}
	if way != eventsForged {
		return
	}
	round, over := context.WithCancel(p.life)
	p.over = over
	random := rand.New(rand.NewPCG(p.random.Uint64(), 0))
	p.work.Go(func() { p.forge(round, random) })
}

// deliver ends all trouble and sends what is left, and the last events once more.
func (p *provingRelay) deliver(ctx context.Context) {
	p.pass(eventsStraight)
	p.mu.Lock()
	again := append([]relayed{}, p.seen...)
	p.mu.Unlock()
	p.sendAll(ctx, again)
}

// lastSeen picks one of the last events.
func (p *provingRelay) lastSeen(random *rand.Rand) (ev relayed, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		return relayed{}, false
	}
	return p.seen[random.IntN(len(p.seen))], true
}
