package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// asJSON says that -o json was given.
func (a *app) asJSON() bool { return a.output == "json" }

// printJSON writes v to stdout, indented.
func (a *app) printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	if _, err := fmt.Fprintf(a.out, "%s\n", data); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// table writes rows under a head, aligned, indented by indent.
func table(w io.Writer, indent string, head []string, rows [][]string) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = cell(c)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("aligning the table: %w", err)
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(indent+line, " \n")); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	}
	return nil
}

// showResult prints how a request ended and gives the exit code as an error. A refusal goes to stderr
// in table form: it is not the data somebody piped.
func (a *app) showResult(r api.Result) error {
	code := outcomeCode(r.Outcome)
	if a.asJSON() {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		w := a.out
		if code != exitDone {
			w = a.err
		}
		if _, err := io.WriteString(w, resultText(r)); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	}
	if code != exitDone {
		return codeError(code)
	}
	return nil
}

// resultText is a result for people: the sentence, then what the rule saw and demands.
func resultText(r api.Result) string {
	var b strings.Builder
	message := r.Message
	if message == "" && r.Running() {
		message = fmt.Sprintf("operation %d continues", r.Operation)
	}
	if message == "" {
		message = "no particulars were given"
	}
	fmt.Fprintf(&b, "%s: %s\n", clean(string(r.Outcome)), clean(message))
	for _, field := range [][2]string{{"rule", r.Rule}, {"node", r.Node}, {"value", r.Value}, {"threshold", r.Threshold}} {
		if field[1] != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", field[0], cell(field[1]))
		}
	}
	if r.Operation != 0 {
		fmt.Fprintf(&b, "  %-10s %d\n", "operation", r.Operation)
	}
	if len(r.Phases) > 0 {
		fmt.Fprintf(&b, "  %-10s %s\n", "phases", phaseBar(r.Phases))
	}
	if r.Running() {
		fmt.Fprintf(&b, "  %-10s %s\n", "next", "hbctl status shows how far it is, hbctl history how it ended")
	}
	return b.String()
}

// phaseBar is phases on one line.
func phaseBar(phases []api.Phase) string {
	parts := make([]string, len(phases))
	for i, p := range phases {
		parts[i] = fmt.Sprintf("[%s %s]", cell(p.Name), millis(p.MS))
	}
	return strings.Join(parts, "")
}

// millis prints milliseconds with a unit and no more digits than carry meaning.
func millis(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.2f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f ms", ms)
	}
}

// span prints a long duration as people read it: 6d 02:11, 04:12:33.
func span(d time.Duration) string {
	d = max(d, 0)
	days, rest := d/(24*time.Hour), d%(24*time.Hour)
	h, m, s := rest/time.Hour, rest%time.Hour/time.Minute, rest%time.Minute/time.Second
	if days > 0 {
		return fmt.Sprintf("%dd %02d:%02d", days, h, m)
	}
	return fmt.Sprintf("%02d:%02d:%02d", h, m, s)
}

// instant prints a point in time in UTC, saying so.
func instant(t api.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
