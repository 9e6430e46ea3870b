package metacoin

import (
	"strings"

	"signdrop/appliance/reason"
)

// all runs checks in order.
func all(checks ...check) check {
	return func(t *Tx) *reason.Refusal {
		for _, c := range checks {
			if r := c(t); r != nil {
				return r
			}
		}
		return nil
	}
}

// differ refuses a payer who is also the payee.
func differ(a, b string) check {
	return func(t *Tx) *reason.Refusal {
		if t.value(a) != t.value(b) {
			return nil
		}
		return reason.New(reason.FieldInvalid, "name another address", "the same address as %s", a).At(b)
	}
}

// notAmong refuses a list with an entry for the payer.
func notAmong(payer, list, member string) check {
	return func(t *Tx) *reason.Refusal {
		column := t.column(list, member)
		for i := range t.rows.len() {
			if t.rows.at(i, column) == t.value(payer) {
				return reason.New(reason.FieldInvalid, "name another address", "the same address as %s", payer).
					At(list + index(i) + "." + member)
			}
		}
		return nil
	}
}

// ofProject refuses a list with an item of another project.
func ofProject(list, project string) check {
	return func(t *Tx) *reason.Refusal {
		const id = 0 // the first member of an entry, or the only one
		for i := range t.rows.len() {
			if !strings.HasPrefix(t.rows.at(i, id), t.value(project)+"_") {
				return reason.New(reason.FieldInvalid, "list items of one project in one call",
					"not an item of the project in %s", project).At(list + index(i))
			}
		}
		return nil
	}
}

// buyNow refuses an auction's entry that would end below its first price.
func buyNow(list, start, end string) check {
	return func(t *Tx) *reason.Refusal {
		first, last := t.column(list, start), t.column(list, end)
		for i := range t.rows.len() {
			v := t.rows.at(i, last)
			if v != "" && v != "0" && less(v, t.rows.at(i, first)) {
				return reason.New(reason.FieldInvalid, `give 0 for none, or at least the start price`,
					"below the start price").At(list + index(i) + "." + end)
			}
		}
		return nil
	}
}

func checkAuction(t *Tx) *reason.Refusal {
	if v := t.value("auction_buynow_price"); v != "0" && !less(t.value("auction_start_price"), v) {
		return reason.New(reason.FieldInvalid, "give 0 for none, or more than the start price",
			"not above the start price").At("auction_buynow_price")
	}
	start, end := t.value("auction_start_date"), t.value("auction_end_date")
	if end != "" && end != "0" && !less(start, end) {
		return reason.New(reason.FieldInvalid, "give a time after auction_start_date, or leave it out for a day later",
			"not after the start").At("auction_end_date")
	}
	return nil
}

func checkTokenOrder(t *Tx) *reason.Refusal {
	if t.value("token") == t.value("mrc010id") {
		return reason.New(reason.FieldInvalid, "a token is paid for with another", "the same token as mrc010id").At("token")
	}
	unit := t.value("min_trade_unit")
	if unit != "" && !strings.HasSuffix(t.value("amount"), unit[1:]) {
		return reason.New(reason.FieldInvalid, "the amount must be a multiple of it", "does not divide the amount").At("min_trade_unit")
	}
	return nil
}

func checkVote(t *Tx) *reason.Refusal {
	if less(t.value("enddate"), t.value("startdate")) {
		return reason.New(reason.FieldInvalid, "give a time not before startdate", "before the start").At("enddate")
	}
	if t.value("rewardtype") != "20" {
		return nil
	}
	if t.value("reward") == "0" {
		return reason.New(reason.FieldInvalid, "a poll of rewardtype 20 pays: give an amount above 0", "zero").At("reward")
	}
	if less("100", t.value("maxrewardrecipient")) {
		return reason.New(reason.FieldInvalid, "a poll of rewardtype 20 pays at most 100 voters", "above 100").At("maxrewardrecipient")
	}
	return nil
}

// notAnAddress keeps an mrc020_set from being a transfer: with an address as
// data, owner|data|opendate|referencekey|nonce reads as one.
func notAnAddress(name string) check {
	return func(t *Tx) *reason.Refusal {
		if !ValidAddress(t.value(name)) {
			return nil
		}
		return reason.New(reason.FieldInvalid, "add a word to it: alone it would make the text a transfer's",
			"a Metacoin address").At(name)
	}
}

func isReferenceKey(s string) bool {
	bare := strings.ReplaceAll(s, "_", "")
	return len(s) <= 64 && len(bare) < len(s) && (bare == "" || isAlnum(bare))
}
