package policy

import "signdrop/appliance/request"

// Foresee tells, for somebody who has no wallets, why a sign request would be refused
// whatever the wallet. Of a data request it tells the curves on which the wallet may be
// for the text to be signed. What a ledger refuses, and what depends on the time, is not
// looked at. The refusal has the whole path of the field.
func (p *Policy) Foresee(r *request.Request) (curves []string, err error) {
	if err := p.replaces(r); err != nil || r.Data == nil {
		return nil, err
	}
	var first error
	for _, c := range []string{"P-256", "P-384", "P-521", "secp256k1"} {
		_, err := signData(r.Data, c)
		if err == nil {
			err = p.data(r, Wallet{Curve: c})
		}
		if err == nil {
			curves = append(curves, c)
		} else if first == nil {
			first = err
		}
	}
	if len(curves) > 0 {
		return curves, nil
	}
	return nil, first
}
