package modelfs

// Inodes counts the inodes that v keeps in memory.
func (v *Volume) Inodes() int { return len(v.nodes) }
