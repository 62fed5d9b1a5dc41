package mysqld

import (
	"slices"
	"strings"
	"unicode"
)

// statementLength is how many characters of a statement are shown.
const statementLength = 60

// beginning gives the first words of a statement. Literals become ?, as they
// may be anybody's secrets, and comments are left out.
func beginning(statement string) string {
	text := []rune(strings.Join(statementWords(statement, 2*statementLength), " "))
	if len(text) > statementLength {
		return string(text[:statementLength]) + "..."
	}
	return string(text)
}

// ddlVerbs begin statements that change definitions, or wait for everybody
// else's use of a table to end.
var ddlVerbs = []string{"ALTER", "ANALYZE", "BACKUP", "CREATE", "DROP", "FLUSH", "GRANT", "INSTALL", "LOCK", "OPTIMIZE", "RENAME", "REPAIR", "REVOKE", "TRUNCATE", "UNINSTALL"}

func isDDL(statement string) bool {
	w := statementWords(statement, 1)
	return len(w) > 0 && slices.Contains(ddlVerbs, strings.ToUpper(w[0]))
}

// statementWords splits a statement into words until they make up so many
// characters. What cannot be made out, as a string without its end, is left out.
func statementWords(statement string, characters int) []string {
	var out []string
	for rest, n := statement, 0; n < characters; {
		rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
		if rest == "" {
			break
		}
		word, after := nextWord(rest)
		if word != "" {
			out = append(out, word)
			n += len(word)
		}
		rest = after
	}
	return out
}

// nextWord takes one word off; "" for a comment.
func nextWord(text string) (word, rest string) {
	switch {
	case strings.HasPrefix(text, "/*"):
		return "", afterMark(text[2:], "*/")
	case text[0] == '#', strings.HasPrefix(text, "--"):
		return "", afterMark(text, "\n")
	case text[0] == '\'' || text[0] == '"':
		return "?", afterString(text[1:], text[0])
	case text[0] == '`':
		rest := afterMark(text[1:], "`")
		return text[:len(text)-len(rest)], rest
	}
	end := strings.IndexFunc(text, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("'\"`#/-", r) })
	if end == 0 {
		end = 1
	}
	if end < 0 {
		end = len(text)
	}
	return withoutNumbers(text[:end]), text[end:]
}

func afterMark(text, mark string) string {
	if _, rest, found := strings.Cut(text, mark); found {
		return rest
	}
	return ""
}

// afterString skips to behind the closing quote.
func afterString(text string, quote byte) string {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case quote:
			return text[i+1:]
		}
	}
	return ""
}

// withoutNumbers puts ? for each run of digits that does not belong to a name.
func withoutNumbers(word string) string {
	var b strings.Builder
	inName, inNumber := false, false
	for _, r := range word {
		switch {
		case unicode.IsDigit(r) && !inName:
			if !inNumber {
				b.WriteByte('?')
			}
			inNumber = true
			continue
		case inNumber && (r == '.' || unicode.IsLetter(r)): // 1.5, 1e5, 0xff
			continue
		}
		inName, inNumber = unicode.IsLetter(r) || r == '_' || inName && unicode.IsDigit(r), false
		b.WriteRune(r)
	}
	return b.String()
}
