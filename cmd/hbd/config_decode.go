package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// decoder fills structs from a YAML file and refuses everything it does not know. It is strict where the library's own
// is not (a number is no string, a duration needs its unit), finds all mistakes and not only the first, and remembers
// where every value stands.
type decoder struct {
	file     string
	places   map[string]*token.Position // by path, such as peers[0].address
	problems []problem
}

// problem is one mistake: where, what, and how to mend it.
type problem struct {
	line, column    int
	key, what, mend string
}

// configError is everything wrong with a file.
type configError struct {
	file     string
	problems []problem
}

// Error is one line per mistake, each as FILE:LINE:COLUMN: KEY: WHAT; MEND.
func (e *configError) Error() string {
	lines := make([]string, 0, len(e.problems))
	for _, p := range e.problems {
		line := fmt.Sprintf("%s:%d:%d: ", e.file, p.line, p.column)
		if p.key != "" {
			line += p.key + ": "
		}
		lines = append(lines, line+p.what+"; "+p.mend)
	}
	return strings.Join(lines, "\n")
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, places: map[string]*token.Position{}}
}

// err is what was found so far, in the order of the file.
func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b problem) int {
		if a.line != b.line {
			return a.line - b.line
		}
		return a.column - b.column
	})
	return &configError{d.file, d.problems}
}

// refuse notes a mistake at a key; a key that is not in the file is placed at the nearest one around it that is.
func (d *decoder) refuse(key, what, mend string) {
	p := problem{line: 1, column: 1, key: key, what: what, mend: mend}
	for at := key; at != ""; at = parentKey(at) {
		if pos := d.places[at]; pos != nil {
			p.line, p.column = pos.Line, pos.Column
			break
		}
	}
	d.problems = append(d.problems, p)
}

// parentKey is peers[0] of peers[0].id, and peers of peers[0].
func parentKey(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

func (d *decoder) refuseAt(node ast.Node, key, what, mend string) {
	pos := node.GetToken().Position
	d.problems = append(d.problems, problem{pos.Line, pos.Column, key, what, mend})
}

// document reads the one document of a file.
func (d *decoder) document(raw []byte, into any) {
	file, err := parser.ParseBytes(raw, 0)
	if err != nil {
		d.syntax(err)
		return
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		d.refuse("", "is not one YAML document", "write the keys of docs/hbd.yaml.md into one document")
		return
	}
	d.value(file.Docs[0].Body, reflect.ValueOf(into).Elem(), "")
}

// syntax turns the parser's error, which may fill a screen, into one line.
func (d *decoder) syntax(err error) {
	p := problem{line: 1, column: 1, what: err.Error(), mend: "mend the YAML"}
	var known yaml.Error
	if errors.As(err, &known) {
		p.what = known.GetMessage()
		if t := known.GetToken(); t != nil {
			p.line, p.column = t.Position.Line, t.Position.Column
		}
	}
	if strings.Contains(p.what, "already defined") {
		p.mend = "keep one of the two"
	}
	d.problems = append(d.problems, p)
}

var nodeType = reflect.TypeFor[ast.Node]()

// value reads one node.
func (d *decoder) value(node ast.Node, into reflect.Value, key string) {
	d.places[key] = node.GetToken().Position
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.refuseAt(node, key, "is an anchor, alias or tag", "write the value itself")
		return
	}
	switch {
	case into.Type() == nodeType:
		into.Set(reflect.ValueOf(node))
	case into.Type() == reflect.TypeFor[time.Duration]():
		d.duration(node, into, key)
	case into.Kind() == reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		d.value(node, into.Elem(), key)
	case into.Kind() == reflect.Struct:
		d.mapping(node, into, key)
	case into.Kind() == reflect.Slice:
		d.sequence(node, into, key)
	default:
		d.scalar(node, into, key)
	}
}

// mapping reads a node with keys. An empty section is as good as none.
func (d *decoder) mapping(node ast.Node, into reflect.Value, key string) {
	var values []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.refuseAt(node, key, "is "+nameOf(node)+", and must have keys", "see docs/hbd.yaml.md for them")
		return
	}
	known := keysOf(into.Type())
	for _, v := range values {
		name := v.Key.GetToken().Value
		full := strings.TrimPrefix(key+"."+name, ".")
		field, ok := known[name]
		if !ok {
			d.refuseAt(v.Key, full, "is not a key of hbd", suggest(name, known))
			continue
		}
		d.value(v.Value, into.Field(field), full)
		d.places[full] = v.Key.GetToken().Position // a mistake is looked for at its key
	}
}

// keysOf gives the fields of a struct by their names in the file.
func keysOf(t reflect.Type) map[string]int {
	out := map[string]int{}
	for i := range t.NumField() {
		name, tagged := t.Field(i).Tag.Lookup("yaml")
		if !tagged {
			name, tagged = t.Field(i).Tag.Lookup("json") // the settings are tagged for the log
		}
		if tagged && name != "-" {
			out[name] = i
		}
	}
	return out
}

func (d *decoder) sequence(node ast.Node, into reflect.Value, key string) {
	n, ok := node.(*ast.SequenceNode)
	if !ok {
		d.refuseAt(node, key, "is "+nameOf(node)+", and must be a list", "write it as [a, b] or with dashes")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(n.Values), len(n.Values)))
	for i, v := range n.Values {
		d.value(v, into.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
}

func (d *decoder) scalar(node ast.Node, into reflect.Value, key string) {
	wrong := func(want string) {
		d.refuseAt(node, key, "is "+nameOf(node)+", and must be "+want, "see docs/hbd.yaml.md")
	}
	switch into.Kind() {
	case reflect.String:
		if n, ok := node.(*ast.StringNode); ok {
			into.SetString(n.Value)
			return
		}
		wrong("text (in quotes, if it looks like something else)")
	case reflect.Bool:
		if n, ok := node.(*ast.BoolNode); ok {
			into.SetBool(n.Value)
			return
		}
		wrong("true or false")
	case reflect.Int, reflect.Int64, reflect.Uint16:
		d.integer(node, into, key)
	default:
		panic("hbd: configuration field of unknown kind " + into.Kind().String())
	}
}

func (d *decoder) integer(node ast.Node, into reflect.Value, key string) {
	low, high, want := int64(math.MinInt32), int64(math.MaxInt32), "a whole number"
	if into.Kind() == reflect.Uint16 {
		low, high, want = 1, math.MaxUint16, "a port, 1 to 65535" // no other field is of this kind
	}
	n, ok := node.(*ast.IntegerNode)
	value, err := int64(0), error(nil)
	if ok {
		value, err = strconv.ParseInt(fmt.Sprint(n.Value), 10, 64)
	}
	if !ok || err != nil || value < low || value > high {
		d.refuseAt(node, key, "is "+nameOf(node)+", and must be "+want, "write such a number, without quotes")
		return
	}
	if into.CanUint() {
		into.SetUint(uint64(value))
		return
	}
	into.SetInt(value)
}

func (d *decoder) duration(node ast.Node, into reflect.Value, key string) {
	text := node.GetToken().Value
	v, err := time.ParseDuration(text)
	if _, isText := node.(*ast.StringNode); isText && err == nil {
		into.SetInt(int64(v))
		return
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		d.refuseAt(node, key, "is "+text+" without a unit", "write "+text+"ms or "+text+"s")
		return
	}
	d.refuseAt(node, key, "is "+nameOf(node)+", and must be a duration", "write a number with a unit of ms, s, m or h, such as 1200ms")
}

// nameOf says what a node is, with its text where it has one.
func nameOf(node ast.Node) string {
	text := strconv.Quote(node.GetToken().Value)
	switch node.(type) {
	case *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section with keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "the text " + text
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + node.GetToken().Value
	case *ast.BoolNode:
		return node.GetToken().Value
	}
	return "something else"
}

// suggest names the key that was probably meant, or all there are.
func suggest(name string, known map[string]int) string {
	keys := make([]string, 0, len(known))
	best, distance := "", 3 // more than two letters off is another word
	for k := range known {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if n := editDistance(name, k); n < distance {
			best, distance = k, n
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "the keys here are " + strings.Join(keys, ", ")
}

// editDistance counts the letters to change, add or drop (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
