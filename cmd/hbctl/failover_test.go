package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

func atRisk() api.Risk {
	return api.Risk{Primary: "db1", DegradedSince: api.At(now.Add(-2 * time.Minute)), DegradedWhy: "db2 and db3 are out of reach",
		Position: "0-1-4711", SeenBy: "db2", AgeMS: ptr(2310.0),
		Nodes: []api.RiskNode{{ID: "db2", Position: "0-1-4499", Missing: ptr(uint64(212))}, {ID: "db3", Error: "no answer in time"}}}
}

// TestRiskGolden: what is not known is called unknown.
func TestRiskGolden(t *testing.T) {
	unseen := atRisk()
	unseen.Position, unseen.SeenBy, unseen.AgeMS, unseen.Nodes[0].Missing = "", "", nil, nil
	sound := atRisk()
	sound.DegradedSince, sound.DegradedWhy = api.Time{}, ""
	golden(t, "risk.txt", []byte(riskText(atRisk())+"\n"+riskText(unseen)+"\n"+riskText(sound)+"\n"+riskText(api.Risk{})))
}

// failoverNode answers plans with the risk and the real thing with done.
func failoverNode(t *testing.T, plan api.Result) (*fakeNode, string) {
	t.Helper()
	f, addr := newFakeNode(t, healthyStatus())
	f.handle("POST "+api.PathFailover, func(w http.ResponseWriter, body string) {
		var req api.FailoverRequest
		if err := json.Unmarshal([]byte(body), &req); err != nil {
			t.Error(err)
		}
		answer := api.Result{Outcome: api.OutcomeDone, Message: "failover done: epoch 43, primary db2"}
		if req.Plan {
			answer = plan
		}
		if answer.Outcome == api.OutcomeRefused {
			w.WriteHeader(http.StatusConflict)
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	})
	return f, addr
}

func TestFailover(t *testing.T) {
	risk := atRisk()
	plan := api.Result{Outcome: api.OutcomeDone, Message: "plan only: a failover would go on that may lose acknowledged writes", Risk: &risk}
	f, addr := failoverNode(t, plan)

	checkRun(t, addr, exitUsage, "--fenced goes with --accept-data-loss", "failover", "--fenced", "db1", "--yes")
	checkRun(t, addr, exitUsage, "add --yes", "failover")
	checkRun(t, addr, exitUsage, "at least 212", "failover", "--accept-data-loss")
	checkRun(t, addr, exitDone, "at least 212", "failover", "--accept-data-loss", "--plan")
	if stdout, _ := checkRun(t, addr, exitDone, `"missing": 212`, "failover", "--accept-data-loss", "--plan", "-o", "json"); strings.Contains(stdout, "AT RISK") {
		t.Errorf("the JSON has text in it: %s", stdout)
	}
	for _, body := range f.changes() {
		if !strings.Contains(body, `"plan":true`) {
			t.Errorf("something was begun without a yes: %s", body)
		}
	}
	before := len(f.changes())
	checkRun(t, addr, exitDone, "done", "failover", "--to", "db2", "--yes")
	checkRun(t, addr, exitDone, "AT RISK with db1", "failover", "--accept-data-loss", "--fenced", "db1", "--yes")
	got := f.changes()[before:]
	want := []string{`{"to":"db2","accept_data_loss":false,"fenced":"","plan":false,`, `{"to":"","accept_data_loss":true,"fenced":"db1","plan":true,`,
		`{"to":"","accept_data_loss":true,"fenced":"db1","plan":false,`}
	if len(got) != len(want) {
		t.Fatalf("sent %q", got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("sent %s, want %s", got[i], want[i])
		}
	}
}

// TestLossWantsTheClustersName: a yes from habit is not enough.
func TestLossWantsTheClustersName(t *testing.T) {
	risk := atRisk()
	f, addr := failoverNode(t, api.Result{Outcome: api.OutcomeDone, Risk: &risk})
	for answer, want := range map[string]int{"y": exitFailed, "": exitFailed, "shops": exitFailed, "shop": exitDone} {
		before := len(f.changes())
		code, shown := onTerminal(t, addr, answer, "failover", "--accept-data-loss")
		begun := len(f.changes()) - before - 1 // the plan
		if code != want || !strings.Contains(shown, "AT RISK with db1") || (begun > 0) != (want == exitDone) {
			t.Errorf("answer %q: exit %d, %d begun: %s", answer, code, begun, shown)
		}
	}
}

func TestRefusedLossShowsTheRisk(t *testing.T) {
	risk := atRisk()
	f, addr := failoverNode(t, api.Result{Outcome: api.OutcomeRefused, Rule: "failover.not-off", Node: "db1", Message: "its hbd has just reported: it is not switched off", Risk: &risk})
	checkRun(t, addr, exitFailed, "failover.not-off", "failover", "--accept-data-loss", "--fenced", "db1", "--yes")
	if n := len(f.changes()); n != 1 {
		t.Errorf("%d requests after a refusal: %q", n, f.changes())
	}
}
