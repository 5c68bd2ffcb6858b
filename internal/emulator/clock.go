package emulator

import (
	"container/heap"
	"fmt"
	"math"
	"time"
)

// instant is a moment on the emulator's clock in unix milliseconds; 0 is none.
type instant int64

// iso writes the moment as JavaScript does: UTC with milliseconds, years beyond
// 9999 with a sign and six digits. None is the empty text.
func (t instant) iso() string {
	if t == 0 {
		return ""
	}
	u := time.UnixMilli(int64(t)).UTC()
	if u.Year() > 9999 {
		return fmt.Sprintf("+%06d%s", u.Year(), u.Format("-01-02T15:04:05.000Z"))
	}
	return u.Format("2006-01-02T15:04:05.000Z")
}

func (t instant) time() time.Time { return time.UnixMilli(int64(t)).UTC() }

func (t instant) plus(d time.Duration) instant { return t + instant(d.Milliseconds()) }

// clock is the wall clock plus what advance has added, with the alarms set on it.
// Its owner guards it; alarms ring with the owner's lock held.
type clock struct {
	shift  int64 // milliseconds ahead of the wall clock
	alarms alarmHeap
	set    int           // alarms set so far, which orders those of one moment
	wake   chan struct{} // gets a value when the first alarm has changed
}

func newClock() clock { return clock{wake: make(chan struct{}, 1)} }

type alarm struct {
	at    instant
	order int
	place int // in the heap; -1 when it has rung or was dropped
	ring  func()
}

func (c *clock) now() instant { return instant(time.Now().UnixMilli() + c.shift) }

// at sets an alarm. One whose moment is past rings as soon as the clock is looked at.
func (c *clock) at(when instant, ring func()) *alarm {
	c.set++
	a := &alarm{at: when, order: c.set, ring: ring}
	heap.Push(&c.alarms, a)
	if a.place == 0 {
		c.rouse()
	}
	return a
}

// drop takes an alarm back; nil or a rung one is fine.
func (c *clock) drop(a *alarm) {
	if a != nil && a.place >= 0 {
		heap.Remove(&c.alarms, a.place)
	}
}

func (c *clock) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ringDue rings what is due, soonest first, also what the ringing sets.
func (c *clock) ringDue() {
	for len(c.alarms) > 0 && c.alarms[0].at <= c.now() {
		heap.Pop(&c.alarms).(*alarm).ring()
	}
}

// advance moves the clock forward, standing still at each alarm on the way, so that
// every alarm rings at its own moment.
func (c *clock) advance(ms int64) {
	target := c.now() + instant(ms)
	for len(c.alarms) > 0 && c.alarms[0].at <= target {
		if ahead := c.alarms[0].at - c.now(); ahead > 0 {
			c.shift += int64(ahead)
		}
		heap.Pop(&c.alarms).(*alarm).ring()
	}
	if ahead := target - c.now(); ahead > 0 {
		c.shift += int64(ahead)
	}
	c.rouse()
}

// untilFirst is how long the first alarm is away in real time.
func (c *clock) untilFirst() time.Duration {
	if len(c.alarms) == 0 {
		return math.MaxInt64
	}
	return max(0, time.Until(time.UnixMilli(int64(c.alarms[0].at)-c.shift)))
}

// alarmHeap has the soonest alarm first, and of one moment the one set first.
type alarmHeap []*alarm

func (h alarmHeap) Len() int { return len(h) }
func (h alarmHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].order < h[j].order
}
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	a.place = len(*h)
	*h = append(*h, a)
}
func (h *alarmHeap) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	a.place = -1
	return a
}
