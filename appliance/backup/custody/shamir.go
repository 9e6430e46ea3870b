package custody

import (
	"errors"
	"fmt"
	"io"
)

// Shamir's scheme (How to share a secret, CACM 22, 1979), byte by byte over GF(2⁸)
// with the polynomial x⁸+x⁴+x³+x²+1, the secret at 0 and share n at n: the way of
// libgfshare, whose gfcombine puts our shares together too. Nothing here branches on
// a secret byte or uses it as an index.

// point is one share of a secret: the values at x.
type point struct {
	x byte
	y []byte
}

// split makes points 1 to n of polynomials of degree needed-1.
func split(secret []byte, needed, n int, random io.Reader) ([]point, error) {
	if needed < 2 || n < needed || n > 255 {
		return nil, fmt.Errorf("%d of %d shares make no sense: use 2 to 255, and not more than there are", needed, n)
	}
	coefficients := make([]byte, needed*len(secret)) // the highest first, the secret last
	defer clear(coefficients)
	if _, err := io.ReadFull(random, coefficients); err != nil {
		return nil, err
	}
	copy(coefficients[(needed-1)*len(secret):], secret)
	points := make([]point, n)
	for i := range points {
		p := point{byte(i + 1), make([]byte, len(secret))}
		for k := range needed {
			for j := range p.y { // Horner
				p.y[j] = mul(p.y[j], p.x) ^ coefficients[k*len(secret)+j]
			}
		}
		points[i] = p
	}
	return points, nil
}

// at evaluates the polynomials through the points at x. The points must have
// different x and values of one length.
func at(points []point, x byte) []byte {
	out := make([]byte, len(points[0].y))
	for i, p := range points {
		over, under := byte(1), byte(1)
		for j, q := range points {
			if i != j {
				over, under = mul(over, x^q.x), mul(under, p.x^q.x)
			}
		}
		weight := mul(over, inverse(under))
		for k := range out {
			out[k] ^= mul(weight, p.y[k])
		}
	}
	return out
}

// errApart: the points are not all on one polynomial.
var errApart = errors.New("the shares contradict each other")

// combine gives the secret of needed points or more.
func combine(points []point, needed int) ([]byte, error) {
	for _, p := range points[needed:] {
		for i, b := range at(points[:needed], p.x) {
			if b != p.y[i] {
				return nil, errApart
			}
		}
	}
	return at(points[:needed], 0), nil
}

func mul(a, b byte) (p byte) {
	for i := 7; i >= 0; i-- {
		p = p<<1 ^ -(p>>7)&0x1d ^ -(b>>i&1)&a
	}
	return p
}

// inverse is a to the 254th; of 0 it is 0.
func inverse(a byte) byte {
	p := byte(1)
	for range 254 {
		p = mul(p, a)
	}
	return p
}
