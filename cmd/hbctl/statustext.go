package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// writeStatus prints a status for people: the verdict first, what would happen next, then the nodes.
// now is this machine's clock and only dates the page and tells spans.
func writeStatus(w io.Writer, s api.Status, now time.Time, colour bool) error {
	var b strings.Builder
	writeHeader(&b, s, now, colour)
	writePrimary(&b, s, now)
	writeOperation(&b, s)
	for _, why := range s.Why {
		fmt.Fprintf(&b, "  WHY      %s\n", cell(why))
	}
	writeSync(&b, s, now)
	if s.Paused {
		fmt.Fprintf(&b, "  PAUSED   %s\n", pauseText(s.Pause))
	}
	if s.IfPrimaryDied != "" {
		name := cell(s.Primary)
		if s.Primary == "" {
			name = "THE PRIMARY"
		}
		fmt.Fprintf(&b, "  IF %s DIED NOW   %s\n", name, cell(s.IfPrimaryDied))
	}
	for _, next := range s.Next {
		fmt.Fprintf(&b, "  NEXT     %s\n", cell(next))
	}
	if s.Primary != "" && !s.GateKernel {
		fmt.Fprintf(&b, "  WEAKER   the kernel does not guard the lease on %s; a frozen hbd would not be fenced\n", cell(s.Primary))
	}
	b.WriteString("\n")
	if err := table(&b, "  ", []string{"NODE", "ROLE", "HEALTH", "SYNC", "LAG", "SERVER", "RAFT", "NOTE"}, nodeRows(s)); err != nil {
		return err
	}
	if s.LastIncident != nil {
		writeLast(&b, *s.LastIncident, now)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

func writeHeader(b *strings.Builder, s api.Status, now time.Time, colour bool) {
	mode := s.Mode
	if s.Paused {
		mode = "paused"
	}
	verdict := strings.ToUpper(strings.ReplaceAll(cell(string(s.Verdict)), "_", " "))
	left := fmt.Sprintf("%s  %s, %s", cell(s.Cluster), verdict, survives(s.FailuresTolerated))
	right := fmt.Sprintf("epoch %d   %s   %s, told by %s, %d ms old",
		s.Epoch, cell(mode), now.UTC().Format("15:04:05Z"), teller(s), s.AgeMS)
	line := fmt.Sprintf("%-48s %s\n", left, right)
	if colour {
		line = strings.Replace(line, verdict, paint(s.Verdict)+verdict+"\x1b[0m", 1)
	}
	b.WriteString(line)
}

// paint is the terminal's code for a verdict. The word stays: colour alone says nothing to many.
func paint(v api.Standing) string {
	switch v {
	case api.StandingHealthy:
		return "\x1b[1;32m"
	case api.StandingDegraded:
		return "\x1b[1;33m"
	default:
		return "\x1b[1;31m"
	}
}

func survives(n int) string {
	switch n {
	case 0:
		return "survives 0 failures"
	case 1:
		return "survives 1 more failure"
	default:
		return fmt.Sprintf("survives %d more failures", n)
	}
}

// teller says who answered and whether that node leads or knows who does.
func teller(s api.Status) string {
	switch {
	case s.Leader == "":
		return cell(s.ToldBy) + " (no leader known)"
	case s.Leader == s.ToldBy:
		return cell(s.ToldBy) + " (leader)"
	default:
		return cell(s.ToldBy)
	}
}

func writePrimary(b *strings.Builder, s api.Status, now time.Time) {
	vips := make([]string, len(s.VIPs))
	for i, v := range s.VIPs {
		holder := "held by nobody"
		if v.Holder != "" {
			holder = "on " + cell(v.Holder)
		}
		vips[i] = cell(v.Address) + " " + holder
	}
	vip := "none"
	if len(vips) > 0 {
		vip = strings.Join(vips, ", ")
	}
	if s.Primary == "" {
		fmt.Fprintf(b, "  PRIMARY  none   VIP %s\n", vip)
		return
	}
	since := "?"
	if !s.PrimarySince.IsZero() {
		since = span(now.Sub(s.PrimarySince.Time))
	}
	lease, writes := "no lease", "writes refused"
	for _, n := range s.Nodes {
		if n.ID == s.Primary {
			if n.LeaseMS > 0 {
				lease = fmt.Sprintf("lease %.2f s", float64(n.LeaseMS)/1000)
			}
			if n.Writable {
				writes = "writes ok"
			}
		}
	}
	fmt.Fprintf(b, "  PRIMARY  %s  %s   VIP %s   %s   %s\n", cell(s.Primary), since, vip, lease, writes)
}

func writeOperation(b *strings.Builder, s api.Status) {
	op := s.Operation
	if op == nil {
		return
	}
	fmt.Fprintf(b, "  NOW      %s %d %s -> %s by %s: %s, %s", cell(op.Kind), op.ID, cell(op.From), cell(op.To), cell(op.Actor),
		strings.ToUpper(cell(op.Step)), millis(op.ElapsedMS))
	if op.LimitMS > 0 {
		fmt.Fprintf(b, " of <= %s", millis(op.LimitMS))
	}
	if len(op.Phases) > 0 {
		fmt.Fprintf(b, "  %s", phaseBar(op.Phases))
	}
	b.WriteString("\n")
}

// writeSync says what acknowledged writes survive, and what is being changed about that.
func writeSync(b *strings.Builder, s api.Status, now time.Time) {
	if len(s.Sync.Set) > 0 || s.Sync.Acks > 0 {
		fmt.Fprintf(b, "  WRITES   held by the primary and %d of %s: survive the loss of the disks of any %s\n", s.Sync.Acks, cell(strings.Join(s.Sync.Set, ", ")), nodesText(s.DisksSurvived))
	}
	if c := s.Sync.Change; c != nil {
		what := fmt.Sprintf("to wait for %d", c.Acks)
		if c.Node != "" {
			what = c.Node + " leaves the set"
		}
		fmt.Fprintf(b, "  CHANGE   %s, prepared for %s: %s\n", cell(what), span(now.Sub(c.Since.Time)), cell(c.Cause))
	}
	if s.LossyEpoch != 0 && s.LossyEpoch == s.Epoch {
		fmt.Fprintf(b, "  LOSSY    in epoch %d acknowledged writes may have been lost, as an operator accepted: hbctl history\n", s.LossyEpoch)
	}
}

func nodesText(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func pauseText(p *api.Pause) string {
	if p == nil {
		return "by ?"
	}
	until := "until resumed (hbctl resume)"
	if !p.Until.IsZero() {
		until = "until " + instant(p.Until)
	}
	return fmt.Sprintf("%s, since %s by %s: %s", until, instant(p.Since), cell(p.By), cell(p.Why))
}

func nodeRows(s api.Status) [][]string {
	rows := make([][]string, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		sync := n.Sync
		if sync == "" || sync == api.SyncReserve {
			sync = "-"
		}
		raft := "-"
		switch {
		case n.ID == s.Leader && n.ID != "":
			raft = "leader"
		case n.Voter:
			raft = "voter"
		}
		rows = append(rows, []string{n.ID, n.Role, n.Health, sync, lagText(n), serverText(n), raft, n.Note})
	}
	return rows
}

// lagText tells "does not apply" from "not known": an empty or zero lag has misled many.
func lagText(n api.Node) string {
	switch {
	case n.LagSeconds != nil:
		return fmt.Sprintf("%.1f s", *n.LagSeconds)
	case n.Role == api.RolePrimary || n.Role == api.RoleWitness:
		return "-"
	default:
		return "?"
	}
}

func serverText(n api.Node) string {
	switch {
	case n.Server == api.ServerNone:
		return "-"
	case n.Server == api.ServerUp && n.Version != "":
		return n.Version
	default:
		return n.Server
	}
}

func writeLast(b *strings.Builder, i api.Incident, now time.Time) {
	ago := "?"
	if !i.Started.IsZero() {
		ago = span(now.Sub(i.Started.Time))
	}
	fmt.Fprintf(b, "  last   %s ago  incident %d  %s %s -> %s by %s  %s  gap %s     hbctl incident show %d\n",
		ago, i.ID, cell(i.Kind), cell(i.From), cell(i.To), cell(i.Actor), cell(incidentOutcome(i)), gapText(i), i.ID)
}

func gapText(i api.Incident) string {
	if i.WriteGapMS == nil {
		return "not measured"
	}
	return millis(*i.WriteGapMS)
}
