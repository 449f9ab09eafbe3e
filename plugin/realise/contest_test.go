package realise

import (
	"testing"
	"time"
)

// TestContest: repairs of the rules are made at once, until somebody undoes
// hundreds of them within seconds.
func TestContest(t *testing.T) {
	var c contest
	now := time.Now()
	for n := range ruleRepairsAtOnce {
		if pause, _ := c.next(now); pause != 0 {
			t.Fatalf("repair %d waits %v", n+1, pause)
		}
	}
	if pause, begins := c.next(now); pause != ruleRepairPause || !begins {
		t.Errorf("the repair after %d: pause %v, begins %v", ruleRepairsAtOnce, pause, begins)
	}
	if pause, begins := c.next(now); pause != ruleRepairPause || begins {
		t.Errorf("the one after it: pause %v, begins %v", pause, begins)
	}
	if pause, _ := c.next(now.Add(repairWindow + time.Second)); pause != 0 {
		t.Errorf("after a quiet window a repair waits %v", pause)
	}
}
