package check

import (
	"slices"
	"strings"

	"github.com/highbase/highbase/cluster/api"
)

// finding is what a row found: result and the four columns. A row that finds nothing is well.
type finding struct {
	result   string
	variable string
	current  string
	required string
	mend     string
}

func failed(variable, current, required, mend string) finding {
	return finding{api.CheckFailed, variable, current, required, mend}
}

func warning(variable, current, required, mend string) finding {
	return finding{api.CheckWarning, variable, current, required, mend}
}

// row looks at one node.
type row struct {
	code string
	what string // the variable of the row when all is well
	// applies leaves the row out where it has no meaning; nil: it always has.
	applies func(api.CheckFacts) bool
	find    func(api.CheckFacts) []finding
	// says is what is current when all is well; nil says nothing.
	says func(api.CheckFacts) string
}

// between looks at all nodes together.
type between struct {
	code, what string
	find       func([]api.CheckFacts) []placed
}

// placed is a finding that belongs to a node.
type placed struct {
	node string
	finding
}

// Codes are the names of all rows, in their order.
func Codes() []string {
	out := []string{"check.asked"}
	for _, r := range rows {
		out = append(out, r.code)
	}
	for _, b := range betweens {
		out = append(out, b.code)
	}
	return out
}

// Judge gives one row or more for each thing looked at on each node, then those between nodes. The facts are in the
// order in which the nodes are told.
func Judge(toldBy string, facts []api.CheckFacts) api.Check {
	out := api.Check{ToldBy: toldBy, OK: true}
	add := func(code, node string, f finding) {
		out.OK = out.OK && f.result != api.CheckFailed
		out.Rows = append(out.Rows, api.CheckRow{Rule: code, Node: node, Result: f.result, Variable: f.variable, Current: f.current, Required: f.required, Mend: f.mend})
	}
	var asked []api.CheckFacts
	for _, f := range facts {
		if f.Error != "" {
			add("check.asked", f.Node, failed("hbd of "+f.Node, f.Error, "answers", "see that hbd runs there and that its API port is reachable: hbctl status"))
			continue
		}
		asked = append(asked, f)
		for _, r := range rows {
			r.judge(f, add)
		}
	}
	for _, b := range betweens {
		found := b.find(asked)
		for _, p := range found {
			add(b.code, p.node, p.finding)
		}
		if len(found) == 0 {
			add(b.code, "", finding{result: api.CheckOK, variable: b.what})
		}
	}
	return out
}

func (r row) judge(f api.CheckFacts, add func(code, node string, f finding)) {
	if r.applies != nil && !r.applies(f) {
		return
	}
	found := r.find(f)
	for _, one := range found {
		add(r.code, f.Node, one)
	}
	if len(found) > 0 {
		return
	}
	well := finding{result: api.CheckOK, variable: r.what}
	if r.says != nil {
		well.current = r.says(f)
	}
	add(r.code, f.Node, well)
}

// serverAnswers: the rows about a server's settings have no meaning before it was asked.
func serverAnswers(f api.CheckFacts) bool { return f.Server != nil && f.Server.Error == "" }

func hasServer(f api.CheckFacts) bool { return f.Server != nil }

// nameFor is a variable's name on a node's kind of server.
func nameFor(f api.CheckFacts, mariadb, mysql string) string {
	if f.Server.Dialect == "mysql" {
		return mysql
	}
	return mariadb
}

// Normal writes a value of a switch as the servers show it, so that 1, on and TRUE compare equal; anything else stays.
func Normal(value string) string {
	switch strings.ToUpper(value) {
	case "1", "ON", "TRUE", "YES":
		return "ON"
	case "0", "OFF", "FALSE", "NO":
		return "OFF"
	}
	return value
}

// is tells whether a value is one of those wanted.
func is(value string, wanted ...string) bool {
	return slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(Normal(value), Normal(w)) })
}

// shown is a value for people; what is not set at all says so.
func shown(value string, set bool) string {
	if !set {
		return "not set"
	}
	return value
}
