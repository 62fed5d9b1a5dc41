package highbase_test

import (
	"go/ast"
	"go/build"
	"go/importer"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
)

// Packages that pure code may not see at all, with everything below them.
var impurePackages = []string{"os", "net", "log", "sync", "math/rand", "math/rand/v2", "crypto/rand", "context", "runtime", "syscall", "unsafe", "testing"}

// impureTime are the functions of package time that read or wait for a clock.
var impureTime = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// mapsInAnyOrder are the iterators of package maps; they must pass a sort at once.
var mapsInAnyOrder = []string{"Keys", "Values", "All"}

// impurities lists what in the files of one package is not pure.
func impurities(set *token.FileSet, pkg string, files []*ast.File) []string {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	build.Default.CgoEnabled = false // the importer leaves behind what it lets cgo make
	// A package that does not type-check is reported by the compiler; here its known types do.
	config := types.Config{Importer: importer.ForCompiler(set, "source", nil), Error: func(error) {}}
	_, _ = config.Check(pkg, set, files, info)
	var found []string
	for _, f := range files {
		w := walker{set: set, info: info, imports: map[string]string{}, complain: func(at token.Pos, what string) {
			found = append(found, set.Position(at).String()+": "+what)
		}}
		for _, spec := range f.Imports {
			w.importSpec(spec)
		}
		for _, d := range f.Decls {
			w.declaration(d)
		}
	}
	return found
}

type walker struct {
	set      *token.FileSet
	info     *types.Info
	imports  map[string]string // package path by the name it has in the file
	complain func(token.Pos, string)
}

func (w *walker) importSpec(spec *ast.ImportSpec) {
	full := unquote(spec.Path)
	name := path.Base(full)
	if name == "v2" {
		name = path.Base(path.Dir(full))
	}
	if spec.Name != nil {
		name = spec.Name.Name
	}
	w.imports[name] = full
	for _, bad := range impurePackages {
		if full == bad || strings.HasPrefix(full, bad+"/") {
			w.complain(spec.Pos(), "imports "+full)
			return
		}
	}
}

func (w *walker) declaration(d ast.Decl) {
	// The one place where a map may be walked: a function that sorts what it collects.
	sorts := false
	if f, ok := d.(*ast.FuncDecl); ok {
		sorts = strings.HasPrefix(strings.ToLower(f.Name.Name), "sorted")
	}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			w.complain(n.Pos(), "starts a goroutine")
		case *ast.SelectStmt:
			w.complain(n.Pos(), "selects")
		case *ast.SendStmt:
			w.complain(n.Pos(), "sends on a channel")
		case *ast.ChanType:
			w.complain(n.Pos(), "has a channel")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				w.complain(n.Pos(), "receives from a channel")
			}
		case *ast.SelectorExpr:
			if w.is(n, "time", impureTime) {
				w.complain(n.Pos(), "uses time."+n.Sel.Name)
			}
		case *ast.RangeStmt:
			if !sorts {
				w.rangeOver(n)
			}
		}
		return true
	})
}

// rangeOver complains of an order that the runtime chooses.
func (w *walker) rangeOver(n *ast.RangeStmt) {
	if call, ok := n.X.(*ast.CallExpr); ok {
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok && w.is(sel, "maps", mapsInAnyOrder) {
			w.complain(n.Pos(), "walks a map in no order")
		}
	}
	if t := w.info.TypeOf(n.X); t != nil {
		if _, isMap := t.Underlying().(*types.Map); isMap {
			w.complain(n.Pos(), "walks a map in no order")
		}
	}
}

// is reports whether sel is one of names in the package with that path.
func (w *walker) is(sel *ast.SelectorExpr, pkg string, names []string) bool {
	x, ok := sel.X.(*ast.Ident)
	return ok && w.imports[x.Name] == pkg && slices.Contains(names, sel.Sel.Name)
}
