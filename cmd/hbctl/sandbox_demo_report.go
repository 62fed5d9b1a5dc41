package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// decidedRejoin is what is decided about a host that comes back. It is no incident: the primary does not change.
const decidedRejoin = "rejoin"

// demoReport is the end of a demo; docs/hbctl.md describes its JSON.
type demoReport struct {
	OK        bool       `json:"ok"`
	Reason    string     `json:"reason"` // why not, "" if all held
	Sandbox   string     `json:"sandbox"`
	Server    string     `json:"server"`
	Version   string     `json:"version"` // the server's own name and version
	Timing    string     `json:"timing"`
	VIP       string     `json:"vip"`
	ElapsedMS float64    `json:"elapsed_ms"` // with building and removing the sandbox
	Steps     []demoStep `json:"steps"`
	Writes    demoWrites `json:"writes"`
	Nodes     []demoNode `json:"nodes"`
}

// demoStep is one fault and what became of it.
type demoStep struct {
	Fault    string      `json:"fault"`
	Decided  string      `json:"decided"` // restart, failover, takeover, switchover, rejoin; "" if nothing was
	Cause    string      `json:"cause"`
	From     string      `json:"from"`
	To       string      `json:"to"`
	Epoch    uint64      `json:"epoch"`
	Incident uint64      `json:"incident,string"` // 0 for a rejoin
	Phases   []api.Phase `json:"phases"`
	// WriteGapMS is the longest silence between two acknowledgements from the last one before the fault on.
	WriteGapMS   float64 `json:"write_gap_ms"`
	Acknowledged int     `json:"acknowledged"` // writes from this fault to the next
	Lost         int     `json:"lost"`         // of these
	Following    int     `json:"following"`    // replicas that follow at the end of the step
	Replicas     int     `json:"replicas"`     // how many there can be
	Problem      string  `json:"problem"`      // "" if the step held
}

// demoWrites are the clients' books.
type demoWrites struct {
	Writers int `json:"writers"`
	sandbox.LoadCounts
	Lost int `json:"lost"`
}

// demoNode is one database host at the end.
type demoNode struct {
	ID   string `json:"id"`
	Role string `json:"role"`
	Rows int    `json:"rows"`
	Lost int    `json:"lost"` // acknowledged rows it lacks
}

// tell copies what an incident's record says. What passed before it began is the detection: everything here
// runs on one clock.
func (s *demoStep) tell(in api.Incident, fault time.Time) {
	s.Decided, s.Cause, s.From, s.To, s.Epoch, s.Incident, s.Phases = in.Kind, in.Cause, in.From, in.To, in.Epoch, in.ID, in.Phases
	if in.Started.IsZero() || in.Kind == api.KindSwitchover {
		return
	}
	for _, p := range in.Phases {
		if p.Name == "detect" {
			return
		}
	}
	detect := api.Phase{Name: "detect", MS: max(0, float64(in.Started.Sub(fault).Microseconds())/1000)}
	s.Phases = append([]api.Phase{detect}, in.Phases...)
}

// count fills in the clients' books. A write belongs to the latest fault before its acknowledgement, those before the
// first fault to the first.
func (r *demoReport) count(load *sandbox.Load, begun []time.Duration, copies []sandbox.Copy) {
	lost := sandbox.Lost(copies)
	r.Writes.LoadCounts, r.Writes.Lost = load.Counts(), len(lost)
	for i := range r.Steps {
		from, to := time.Duration(0), load.Now()
		if i > 0 {
			from = begun[i]
		}
		if i+1 < len(begun) {
			to = begun[i+1]
		}
		r.Steps[i].Acknowledged = load.Acknowledged(from, to)
		for _, a := range lost {
			if a.At >= from && a.At < to {
				r.Steps[i].Lost++
			}
		}
	}
}

func (r *demoReport) nodes(st api.Status, copies []sandbox.Copy) {
	roles := map[string]string{}
	for _, n := range st.Nodes {
		roles[n.ID] = n.Role
	}
	for _, c := range copies {
		r.Nodes = append(r.Nodes, demoNode{ID: c.Host, Role: roles[c.Host], Rows: c.Rows, Lost: len(c.Lost)})
	}
}

// decision is what was decided, for people.
func (s demoStep) decision() string {
	switch s.Decided {
	case api.KindRestart:
		return "restart in place"
	case api.KindFailover, api.KindTakeover, api.KindSwitchover, api.KindHandover:
		return s.Decided + " to " + s.To
	case decidedRejoin:
		return "rejoin as replica"
	}
	return s.Decided
}

// text writes the table, if the servers were compared, and the sentence below it.
func (r demoReport) text(w io.Writer, paint func(style, string) string, removed bool) error {
	fmt.Fprintln(w)
	if len(r.Nodes) > 0 {
		if err := r.table(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	label, style, sentence := "All held:", styleGood, fmt.Sprintf("every acknowledged write is on all %d servers", len(r.Nodes))
	if !r.OK {
		label, style, sentence = "Failed:", styleBad, r.Reason
	}
	sentence += fmt.Sprintf(" (%.0f s", r.ElapsedMS/1000)
	if removed {
		sentence += ", everything removed"
	}
	for i, line := range wrap(cell(label+" "+sentence+")"), demoWidth) {
		if i == 0 {
			line = paint(style, label) + strings.TrimPrefix(line, label)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	}
	return nil
}

// table writes a row for each step, numbers to the right.
func (r demoReport) table(w io.Writer) error {
	var rows [][]string
	for i, s := range r.Steps {
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, s.Fault), s.decision(), fmt.Sprintf("%9s", millis(s.WriteGapMS)),
			fmt.Sprintf("%12d", s.Acknowledged), fmt.Sprintf("%4d", s.Lost), fmt.Sprintf("%d of %d", s.Following, s.Replicas)})
	}
	rows = append(rows, []string{"all", " ", " ", fmt.Sprintf("%12d", r.Writes.Acknowledged), fmt.Sprintf("%4d", r.Writes.Lost), " "})
	return table(w, "", []string{"FAULT", "DECIDED", "WRITE GAP", "ACKNOWLEDGED", "LOST", "FOLLOWING"}, rows)
}
