package reason_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"signdrop/appliance/reason"
)

// document is where the codes are promised to partners.
const document = "../../docs/formats.md"

// row is a row of the document's table: code, remembered, meaning.
var row = regexp.MustCompile("^\\| `([^`]*)` \\| ([^|]*) \\| ([^|]*) \\|$")

// documented reads the table under the heading "Reason codes".
func documented(t *testing.T) []reason.Entry {
	t.Helper()
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(data), "\n## Reason codes\n")
	if !found {
		t.Fatalf("%s has no section Reason codes", document)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var entries []reason.Entry
	for line := range strings.Lines(section) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "| code ") || strings.HasPrefix(line, "|---") {
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%s: not a row of the table: %s", document, line)
		}
		if m[2] != "yes" && m[2] != "no" {
			t.Fatalf("%s: %s is remembered %q, want yes or no", document, m[1], m[2])
		}
		entries = append(entries, reason.Entry{Code: reason.Code(m[1]), Final: m[2] == "yes", Meaning: m[3]})
	}
	if len(entries) == 0 {
		t.Fatalf("%s: the table has no rows", document)
	}
	return entries
}

func TestTableIsDocumented(t *testing.T) {
	doc := map[reason.Code]reason.Entry{}
	for _, e := range documented(t) {
		if _, twice := doc[e.Code]; twice {
			t.Errorf("%s lists %s twice", document, e.Code)
		}
		doc[e.Code] = e
	}
	for _, e := range reason.Table {
		got, ok := doc[e.Code]
		if !ok {
			t.Errorf("%s lacks %s", document, e.Code)
		} else if got != e {
			t.Errorf("%s says %+v, want %+v", document, got, e)
		}
		delete(doc, e.Code)
	}
	for code := range doc {
		t.Errorf("%s has %s, which does not exist", document, code)
	}
}

var codeForm = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func TestCodes(t *testing.T) {
	seen := map[reason.Code]bool{}
	for _, e := range reason.Table {
		if !codeForm.MatchString(string(e.Code)) {
			t.Errorf("code %q is not lower-case words joined with hyphens", e.Code)
		}
		if seen[e.Code] {
			t.Errorf("code %s stands twice", e.Code)
		}
		seen[e.Code] = true
		if e.Meaning == "" || strings.HasSuffix(e.Meaning, ".") || strings.ContainsAny(e.Meaning, "|\n") {
			t.Errorf("the meaning of %s cannot stand in the table: %q", e.Code, e.Meaning)
		}
		if got := reason.Final(e.Code); got != e.Final {
			t.Errorf("Final(%s) = %t, want %t", e.Code, got, e.Final)
		}
	}
	if reason.Final("no-such-code") {
		t.Error("a code that is not listed is remembered")
	}
}

// TestEveryCodeIsListed looks for constants that somebody forgot to list: Final
// would take them for codes that are not remembered.
func TestEveryCodeIsListed(t *testing.T) {
	source, err := os.ReadFile("reason.go")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[reason.Code]bool{}
	for _, e := range reason.Table {
		listed[e.Code] = true
	}
	found := regexp.MustCompile(`(?m)^\t\w+ +Code = "([^"]*)"$`).FindAllSubmatch(source, -1)
	if len(found) != len(listed) {
		t.Errorf("%d constants, and %d codes in the table", len(found), len(listed))
	}
	for _, m := range found {
		if !listed[reason.Code(m[1])] {
			t.Errorf("%s is not in the table", m[1])
		}
	}
}

func TestRefusal(t *testing.T) {
	r := reason.New(reason.FieldInvalid, "use %d", "%d is too many", 3)
	if r.Hint != "use %d" || r.Message != "3 is too many" {
		t.Errorf("New formats the message alone, got %+v", r)
	}
	inner := r.At("amount")
	nested := inner.Under("metacoin").OnLine(7)
	if want := "field-invalid: line 7: field metacoin.amount: 3 is too many (use %d)"; nested.Error() != want {
		t.Errorf("got %q, want %q", nested.Error(), want)
	}
	if got := r.Under("metacoin").Field; got != "metacoin" {
		t.Errorf("a refusal without a field is at %q below metacoin, want metacoin", got)
	}
	// At, Under and OnLine copy: a refusal may be shared.
	if r.Field != "" || r.Line != 0 || inner.Field != "amount" || inner.Line != 0 {
		t.Errorf("a refusal was changed: %+v, %+v", r, inner)
	}
	if got, ok := reason.As(fmt.Errorf("while deciding: %w", nested)); !ok || got != nested {
		t.Errorf("As does not find a wrapped refusal: %v, %t", got, ok)
	}
	if _, ok := reason.As(errors.New("disk")); ok {
		t.Error("As finds a refusal where there is none")
	}
}
