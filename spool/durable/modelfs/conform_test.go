package modelfs_test

import (
	"testing"

	"signdrop/spool/durable"
	"signdrop/spool/durable/durabletest"
	"signdrop/spool/durable/modelfs"
)

func TestModelConforms(t *testing.T) {
	durabletest.Run(t, true, func(t *testing.T) (durable.FS, durabletest.Planter) {
		v := modelfs.New()
		t.Cleanup(func() {
			if open := v.OpenHandles(); len(open) > 0 {
				t.Errorf("left open: %q", open)
			}
		})
		return v, v
	})
}
