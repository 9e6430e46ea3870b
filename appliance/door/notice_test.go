package door

import "testing"

// FuzzReport: whatever a door says first is a report or an error.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"Landlock":6,"KeysClosed":true}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseReport(data); err != nil && r != (report{}) {
			t.Errorf("an error, and %+v", r)
		}
	})
}
