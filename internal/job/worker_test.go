package job

import (
	"testing"
	"time"
)

func TestAClaimHoldsTheJobForOneWorker(t *testing.T) {
	j := after(t, internalJob(t), at(second(5), claim()))
	hasState(t, j, StateLeased)
	if j.Status() != Executing || !j.Started.Equal(second(5)) || j.Attempt != 1 {
		t.Errorf("status, started, attempt: got %s, %v, %d, want EXECUTING, %v, 1", j.Status(), j.Started, j.Attempt, second(5))
	}
	if j.LeaseToken != token || j.LeaseOwner != "one" || j.LeaseFor != hold || !j.LeaseExpires.Equal(second(65)) {
		t.Errorf("lease: got %q of %q for %v until %v", j.LeaseToken, j.LeaseOwner, j.LeaseFor, j.LeaseExpires)
	}
	refuses(t, j, at(second(64), worker(Claim, "token two")), "another worker holds it")
}

func TestAClaimTakesOverALeaseThatHasRunOut(t *testing.T) {
	j := after(t, internalJob(t), at(second(5), claim()), at(second(65), worker(Claim, "token two")))
	if j.LeaseToken != "token two" || j.Attempt != 2 || !j.Started.Equal(second(5)) {
		t.Errorf("token, attempt, started: got %q, %d, %v, want token two, 2, %v", j.LeaseToken, j.Attempt, j.Started, second(5))
	}
	refuses(t, j, at(second(66), complete(`1`)), "the lease is gone")
}

func TestAJobIsNotClaimedBeforeItsTime(t *testing.T) {
	j := internalJob(t, func(s *Spec) { s.Due = second(60) })
	refuses(t, j, at(second(59), claim()), "it is not due before 2026-03-01T08:01:00Z")
	hasState(t, after(t, j, at(second(60), claim())), StateLeased)

	j.NextTry = second(90)
	refuses(t, j, at(second(89), claim()), "its next try is not before 2026-03-01T08:01:30Z")
	j = after(t, j, at(second(90), claim()))
	hasState(t, j, StateLeased)
	if !j.NextTry.IsZero() {
		t.Errorf("next try: got %v, want none", j.NextTry)
	}
}

func TestAFinalJobIsNotClaimed(t *testing.T) {
	for _, s := range internalSamples(t) {
		if s.job.Done() {
			refuses(t, s.job, worker(Claim, "token two"), "it has ended")
		}
	}
}

func TestAWorkerHasNoHandInTriggerJobs(t *testing.T) {
	for _, s := range triggerSamples(t) {
		for _, ev := range []Event{claim(), renew(), release(), complete(`1`), failure(`"no"`)} {
			refuses(t, s.job, ev, "Trigger.dev executes it")
		}
		changesNothing(t, s.job, at(second(9000), leaseLost()))
	}
}

func TestAHeartbeatExtendsTheLeaseByItsOwnLength(t *testing.T) {
	j := after(t, internalJob(t), at(second(5), claim()))
	ev := at(second(60), renew())
	ev.Lease.For = time.Hour // a heartbeat does not choose
	step := next(t, j, ev)
	if got, want := step.Job.LeaseExpires, second(120); !got.Equal(want) {
		t.Errorf("lease until: got %v, want %v", got, want)
	}
	if !step.Quiet {
		t.Error("quiet: got false, want true: a heartbeat is no history")
	}
}

func TestOnlyTheHolderOfALiveLeaseMayAct(t *testing.T) {
	leased := after(t, internalJob(t), at(second(5), claim()))
	for _, kind := range []Kind{Renew, Release, Complete, Fail} {
		t.Run(string(kind), func(t *testing.T) {
			refuses(t, leased, at(second(6), worker(kind, "token two")), "the lease is gone")
			refuses(t, leased, at(second(6), worker(kind, "")), "a worker holds it and no leaseToken was shown")
			refuses(t, leased, at(second(65), worker(kind, token)), "the lease has run out")
			refuses(t, internalJob(t), worker(kind, token), "the lease is gone")
			for _, s := range internalSamples(t) {
				if s.job.Done() && !(kind == Renew && s.state == StateCanceled) {
					refuses(t, s.job, worker(kind, token), "it has ended")
				}
			}
			hasState(t, after(t, leased, at(second(64), worker(kind, token))), map[Kind]State{
				Renew: StateLeased, Release: StateWaiting, Complete: StateCompleted, Fail: StateFailed,
			}[kind])
		})
	}
	refuses(t, internalJob(t), worker(Renew, ""), "the lease is gone")
	refuses(t, internalJob(t), worker(Release, ""), "the lease is gone")
}

func TestTheLastHolderOfACanceledJobIsStillTold(t *testing.T) {
	canceled := after(t, internalJob(t), at(second(5), claim()), cancel("by a user"))
	for _, when := range []time.Time{second(10), second(9000)} {
		changesNothing(t, canceled, at(when, renew()))
	}
	refuses(t, canceled, worker(Renew, "token two"), "it has ended")
	refuses(t, canceled, worker(Renew, ""), "it has ended")
	unclaimed := after(t, internalJob(t), cancel("by a user"))
	refuses(t, unclaimed, worker(Renew, ""), "it has ended")
}

func TestAJobThatNobodyHoldsIsClosedWithoutAToken(t *testing.T) {
	ev := at(second(9), worker(Complete, ""))
	ev.Result = []byte(`{"rows":3}`)
	j := after(t, internalJob(t), ev)
	hasState(t, j, StateCompleted)
	hasResult(t, j, `{"rows":3}`)
	if j.Attempt != 1 || !j.Started.Equal(second(9)) || !j.Finished.Equal(second(9)) {
		t.Errorf("attempt, started, finished: got %d, %v, %v, want 1, %v twice", j.Attempt, j.Started, j.Finished, second(9))
	}
	hasState(t, after(t, internalJob(t), worker(Fail, "")), StateFailed)
	for _, s := range internalSamples(t) {
		if s.job.Done() && s.job.LeaseToken == "" {
			refuses(t, s.job, worker(Complete, ""), "it has ended")
		}
	}
}

func TestAnEndedJobTellsWhenAndHow(t *testing.T) {
	for _, c := range []struct {
		ev      Event
		success bool
		result  string
	}{
		{complete(`{"rows":3}`), true, `{"rows":3}`},
		{complete(``), true, ``},
		{failure(`{"message":"boom"}`), false, `{"error":{"message":"boom"}}`},
		{failure(`"boom"`), false, `{"error":"boom"}`},
		{failure(`not JSON`), false, `{"error":"not JSON"}`},
	} {
		t.Run(string(c.ev.Kind)+" "+string(c.ev.Result), func(t *testing.T) {
			j := internalJob(t, func(s *Spec) { s.RemoveDelay = 30 * 24 * time.Hour })
			j = after(t, j, at(second(5), claim()), at(second(9), c.ev))
			hasResult(t, j, c.result)
			if j.Success == nil || *j.Success != c.success || !j.Finished.Equal(second(9)) {
				t.Errorf("success, finished: got %v, %v, want %v, %v", j.Success, j.Finished, c.success, second(9))
			}
			if want := second(9).AddDate(0, 0, 30); !j.RemoveAt.Equal(want) {
				t.Errorf("remove at: got %v, want %v", j.RemoveAt, want)
			}
			if j.LeaseToken != "" || !j.LeaseExpires.IsZero() {
				t.Errorf("lease: got %q until %v, want none", j.LeaseToken, j.LeaseExpires)
			}
		})
	}
}

func TestAReleasedJobIsAsIfItHadNotBeenClaimed(t *testing.T) {
	j := after(t, internalJob(t), claim(), release())
	hasState(t, j, StateWaiting)
	if j.Attempt != 0 || j.LeaseToken != "" {
		t.Errorf("attempt, lease: got %d, %q, want 0, none", j.Attempt, j.LeaseToken)
	}
	hasState(t, after(t, j, worker(Claim, "token two")), StateLeased)
}

func TestALostLeaseMakesTheJobClaimableAgain(t *testing.T) {
	leased := after(t, internalJob(t), at(second(5), claim()))
	changesNothing(t, leased, at(second(64), leaseLost()))
	j := after(t, leased, at(second(65), leaseLost()))
	hasState(t, j, StateWaiting)
	refuses(t, j, at(second(66), complete(`1`)), "the lease is gone")
	changesNothing(t, j, at(second(66), leaseLost()))
	if got := after(t, j, worker(Claim, "token two")).Attempt; got != 2 {
		t.Errorf("attempt: got %d, want 2", got)
	}
	for _, s := range internalSamples(t) {
		if s.job.Done() {
			changesNothing(t, s.job, at(second(9000), leaseLost()))
		}
	}
}

func TestAJobWhoseWorkersKeepDyingFails(t *testing.T) {
	j := internalJob(t)
	for n := 1; n <= MaxLostLeases; n++ {
		if j.Done() {
			t.Fatalf("ended before claim %d, want %d claims", n, MaxLostLeases)
		}
		j = after(t, j, claim())
		refuses(t, j, claim(), "another worker holds it")
		j = after(t, j, at(j.LeaseExpires, leaseLost()))
	}
	hasState(t, j, StateFailed)
	hasResult(t, j, `{"error":"lease lost, 25 tries"}`)
}

// Claims may come before the sweep that notices lost leases.
func TestTakingOverLostLeasesHasAnEndToo(t *testing.T) {
	j := internalJob(t)
	for range MaxLostLeases {
		j = after(t, j, at(j.Updated.Add(hold), claim()))
	}
	refuses(t, j, at(j.LeaseExpires, claim()), "its leases were lost too often")
	hasState(t, after(t, j, at(j.LeaseExpires, leaseLost())), StateFailed)
}
