package metacoin

import "slices"

// The groups of fields and shapes that several rows share.
var (
	platform = []field{
		opt("platform_name", text(255)),
		opt("platform_url", webURL(255)),
		opt("platform_address", address),
		opt("platform_commission", commission),
	}
	platformMembers = []member{
		may("platform_name", text(255)),
		may("platform_url", webURL(255)),
		may("platform_address", address),
		may("platform_commission", commission),
	}

	auctionFields = []field{
		req("auction_start_price", price),
		req("token", tokenID),
		opt("auction_bidding_unit", price),
		req("auction_buynow_price", amountOrZero), // the chaincode cannot read an empty one
		opt("auction_start_date", unixSeconds),
		opt("auction_end_date", unixSeconds),
	}

	transferList = list(100, object(
		must("address", address), must("amount", amount), must("unlockdate", unixSeconds),
		may("tag", text(64)), may("memo", text(2048)))).noTwo("address")

	// No entry twice and none to the payer: the chaincode reads each wallet as
	// it was before the call, so the second credit would overwrite the first.
	rewardList = list(32, object(
		must("address", address), must("amount", amountOrZero),
		mustSay("tag", text(2048)), mustSay("memo", text(2048)))).noTwo("address")

	voteAnswers = list(20, object(mustBe("answer", integer(1, 4)), mayBe("subanswer", integer(0, 4))))

	voteQuestions = list(20, object(
		must("question", text(2048)), may("url", webURL(2082)),
		mayBe("item", list(4, object(
			may("answer", text(2048)), may("url", webURL(2082)), may("subquery", text(2048)),
			mayBe("subitem", list(4, object(
				may("subanswer", text(2048)), may("url", webURL(2082))))))))))

	shareholders = dict(5, address, commission)
	partners     = dict(64, address, oneOf("partner", "seller", "creator"))
	socialMedia  = dict(64, text(255), text(2082))

	mainnetSpelling = oneOf("Permanent", "Bound", "Temprary") // sic
	testnetSpelling = oneOf("Permanent", "Bound", "Temporary")

	mainnetNewItems = list(100, object(newItem(mainnetSpelling)...)).noTwo("item_id")
	testnetNewItem  = object(append(newItem(testnetSpelling), mayBe("shareholder", shareholders))...)
	testnetNewItems = list(1024, testnetNewItem).noTwo("item_id")

	mainnetItemUpdates = list(100, object(changedItem(mainnetSpelling)...)).noTwo("item_id")
	testnetItemUpdates = list(100, object(append(changedItem(testnetSpelling),
		mayBe("shareholder", shareholders))...)).noTwo("item_id")

	mainnetSales = list(100, object(sale...)).noTwo("id")
	testnetSales = list(1000, object(slices.Concat(sale, platformMembers)...)).noTwo("id")

	sale = []member{must("id", mrc401ID), must("amount", itemPrice), must("token", tokenID)}

	mainnetAuctions = list(100, object(
		must("id", mrc401ID), mustBe("end", integer(0, maxSafe)), must("token", tokenID),
		must("bidding", itemPrice), must("start", itemPrice), may("buynow", itemPriceOrZero))).noTwo("id")
	testnetAuctions = list(1000, object(slices.Concat([]member{
		must("id", mrc401ID), must("token", tokenID),
		must("auction_bidding_unit", itemPrice), must("auction_start_price", itemPrice),
		may("auction_buynow_price", itemPriceOrZero),
		mayBe("auction_start_date", integer(0, maxSafe)), mayBe("auction_end_date", integer(0, maxSafe)),
	}, platformMembers)...)).noTwo("id")

	mainnetItems = list(100, each(mrc401ID)).noTwo(".")
	testnetItems = list(1000, each(mrc401ID)).noTwo(".")
)

func newItem(spelling kind) []member {
	return []member{
		must("item_id", alnum(40, 40)), may("item_url", webURL(255)), may("item_image_url", webURL(255)),
		must("groupid", text(40)), must("initial_reserve", whole("amount", 40, true)), must("initial_token", tokenID),
		must("melting_fee", fee), must("transferable", spelling), must("sell_fee", fee),
	}
}

// changedItem is newItem for an update, which leaves the reserve as it is.
func changedItem(spelling kind) []member {
	return []member{
		must("item_id", alnum(40, 40)), may("item_url", webURL(255)), may("item_image_url", webURL(255)),
		may("groupid", text(40)), may("initial_reserve", whole("amount", 40, true)), may("initial_token", tokenID),
		must("melting_fee", fee), must("transferable", spelling), must("sell_fee", fee),
	}
}

// listText bounds the JSON of a list. The node itself takes 50 MB in a body.
const listText = 1 << 20

// maxSafe is the greatest whole number that the node's JavaScript reads as it
// is written.
const maxSafe = 1<<53 - 1

const (
	storedOrder   = "unit price and payment token of the stored order"
	storedAuction = "payment token of the stored auction"

	noRoute      = "neither node nor bridge has a route for it: hand text and signature to the chaincode yourself"
	notRenewed   = "the one-time key stays after this call, so the same signature can be used again until another call renews it"
	notOnLedger  = "the chaincode does not dispatch it"
	itemJSONOnly = "the text does not name the operation: only the JSON tells sell, unsell, auction and unauction apart"
)

// table has every operation of the ledger, those that it no longer dispatches
// included. AlsoMeans takes from it what else a text can be used for. Texts can
// agree beyond what also names, through mrc020_set alone: a transfer's text is
// a set of data to the chaincode. It is left out because the published bridge
// cannot carry that call, and since it would only store the words.
var table = []operation{
	{
		name: "transfer", standard: "MTC", method: "POST", path: "/transfer", nonce: "checkkey",
		signer: "from", text: "from|to|token|amount|nonce",
		fields: []field{
			req("from", address), req("to", address), req("token", tokenID), req("amount", amount),
			opt("unlockdate", unixSeconds), opt("tags", text(64)), opt("memo", text(2048)),
		},
		check: differ("from", "to"),
		also:  []string{"mrc100_payment"},
		note:  "whoever submits it can lock the received amount until any date: unlockdate is not signed",
	},
	{
		name: "multitransfer", standard: "MTC", method: "POST", path: "/multitransfer", nonce: "checkkey",
		signer: "from", text: "from|transferlist|token|nonce",
		fields: []field{
			req("from", address), req("transferlist", jsonText(listText, transferList)), req("token", tokenID),
		},
		check: notAmong("from", "transferlist", "address"),
		note:  "submit the transferlist exactly as the answer has it: its very bytes are signed",
	},
	{
		name: "signcheck", standard: "MTC",
		signer: "address", text: "data",
		fields: []field{req("address", address), req("data", alnum(1, 20))},
		note:   "proves possession of a key; without a one-time key it proves it for ever, and for every address of the key; " + noRoute,
	},
	{
		name: "token_register", standard: "MRC010", method: "POST", path: "/token/{tkey}", nonce: "tkey",
		signer: "owner", text: "owner|name|nonce",
		// The name is free text to the ledger, but one that begins like a JSON
		// array would be an mrc401 sale or its cancellation as well.
		fields: []field{
			{name: "owner", kind: address, node: "-"},
			{name: "name", kind: tokenName, node: "-"},
		},
		unbound: []string{"symbol", "totalsupply", "decimal", "reserve", "tier", "url", "image", "information", "type",
			"reservedamount", "remainamount", "burnningamount", "softcap", "hardcap", "status", "basetoken", "targettoken", "logger"},
		note: "second step: first POST /token parks the description for an hour under the owner's one-time key, and anyone can replace it there; " + notRenewed,
	},
	{name: "token_add_logger", standard: "MRC100", dead: notOnLedger},
	{name: "token_remove_logger", standard: "MRC100", dead: notOnLedger},
	{
		name: "token_update", standard: "MRC010", method: "PUT", path: "/token/update/{tkey}", nonce: "tkey",
		signer: "state:token.owner", text: "token|url|info|image|nonce",
		// The ledger takes any text as url; a URL here keeps the text from being
		// an mrc100_reward with its second value as address.
		fields: []field{
			req("token", tokenID), opt("url", webURL(2082)), opt("info", text(40960)), opt("image", text(listText)),
		},
		note: "url and info left out are cleared, an image left out stays; " + notRenewed,
	},
	{
		name: "token_burn", standard: "MRC010", method: "PUT", path: "/token/burn/{tkey}", nonce: "tkey",
		signer: "state:token.owner", text: "token|amount|nonce",
		fields: []field{req("token", tokenID), req("amount", amount), opt("memo", text(4096))},
		also:   []string{"token_increase"},
		note:   "whoever submits it can turn it into an increase of the same amount",
	},
	{
		name: "token_increase", standard: "MRC010", method: "PUT", path: "/token/increase/{tkey}", nonce: "tkey",
		signer: "state:token.owner", text: "token|amount|nonce",
		fields: []field{req("token", tokenID), req("amount", amount), opt("memo", text(4096))},
		also:   []string{"token_burn"},
		note:   "whoever submits it can turn it into a burn of the same amount",
	},
	{
		name: "mrc010_sell", standard: "MRC010", method: "POST", path: "/token/sell/{mrc010id}", nonce: "tkey",
		signer: "address", text: "address|amount|mrc010id|price|token|platform_name|platform_url|platform_address|platform_commission|nonce",
		fields: tokenOrder,
		check:  checkTokenOrder,
		also:   []string{"mrc010_reqsell"},
		note:   "the buyer pays price*amount/min_trade_unit, and min_trade_unit is not signed; it can be submitted as a buy order too",
	},
	{
		name: "mrc010_reqsell", standard: "MRC010", method: "POST", path: "/token/reqsell/{mrc010id}", nonce: "tkey",
		signer: "address", text: "address|amount|mrc010id|price|token|platform_name|platform_url|platform_address|platform_commission|nonce",
		fields: tokenOrder,
		check:  checkTokenOrder,
		also:   []string{"mrc010_sell"},
		note:   "a buy order: address buys and pays with token; min_trade_unit is not signed; it can be submitted as a sell order too",
	},
	{
		name: "mrc010_unsell", standard: "MRC010", method: "POST", path: "/token/unsell/{mrc010dexid}", nonce: "tkey",
		signer: "state:dex.seller", text: "mrc010dexid|nonce",
		fields: []field{req("mrc010dexid", mrc010DexID)},
		also:   []string{"mrc010_unreqsell", "mrc010_unauction"},
	},
	{
		name: "mrc010_unreqsell", standard: "MRC010", method: "POST", path: "/token/unreqsell/{mrc010dexid}", nonce: "tkey",
		signer: "state:dex.buyer", text: "mrc010dexid|nonce",
		fields: []field{req("mrc010dexid", mrc010DexID)},
		also:   []string{"mrc010_unsell", "mrc010_unauction"},
	},
	{
		name: "mrc010_buy", standard: "MRC010", method: "POST", path: "/token/buy/{mrc010dexid}", nonce: "tkey",
		signer: "address", text: "mrc010dexid|address|amount|nonce",
		fields:  []field{req("mrc010dexid", mrc010DexID), req("address", address), req("amount", amount)},
		also:    []string{"mrc010_acceptreqsell", "mrc010_bid"},
		unbound: []string{storedOrder},
	},
	{
		name: "mrc010_acceptreqsell", standard: "MRC010", method: "POST", path: "/token/acceptreqsell/{mrc010dexid}", nonce: "tkey",
		signer: "address", text: "mrc010dexid|address|amount|nonce",
		fields:  []field{req("mrc010dexid", mrc010DexID), req("address", address), req("amount", amount)},
		also:    []string{"mrc010_buy", "mrc010_bid"},
		unbound: []string{storedOrder},
	},
	{
		name: "mrc010_auction", standard: "MRC010", nonce: "tkey",
		signer: "address", text: "address|amount|mrc010id|auction_start_price|token|auction_bidding_unit|auction_buynow_price|" +
			"auction_start_date|auction_end_date|platform_name|platform_url|platform_address|platform_commission|nonce",
		fields: slices.Concat(
			[]field{req("address", address), req("amount", amount), req("mrc010id", tokenID)}, auctionFields, platform),
		check: checkAuction,
		note:  noRoute,
	},
	{
		name: "mrc010_unauction", standard: "MRC010", nonce: "tkey",
		signer: "state:dex.seller", text: "mrc010dexid|nonce",
		fields: []field{req("mrc010dexid", mrc010DexID)},
		also:   []string{"mrc010_unsell", "mrc010_unreqsell"},
		note:   noRoute,
	},
	{
		name: "mrc010_bid", standard: "MRC010", nonce: "tkey",
		signer: "address", text: "mrc010dexid|address|amount|nonce",
		fields:  []field{req("mrc010dexid", mrc010DexID), req("address", address), req("amount", amount)},
		also:    []string{"mrc010_buy", "mrc010_acceptreqsell"},
		unbound: []string{storedAuction},
		note:    "a bid at the buy-now price settles at once; " + noRoute,
	},
	{name: "mrc011_create", standard: "MRC011", dead: notOnLedger},
	{
		name: "mrc020_set", standard: "MRC020", method: "POST", path: "/mrc020", nonce: "tkey",
		broken: "the published bridge drops the one-time key, so that the chaincode refuses the call",
		signer: "owner", text: "owner|data|opendate|referencekey|nonce",
		fields: []field{
			req("owner", address), opt("algorithm", text(64)), req("data", text(2048)), req("publickey", text(2048)),
			req("opendate", unixSeconds), req("referencekey", referenceKey),
		},
		check: notAnAddress("data"),
		note:  notRenewed,
	},
	{
		name: "mrc030_create", standard: "MRC030", method: "POST", path: "/mrc030", nonce: "tkey",
		signer: "owner", text: "owner|title|reward|rewardtoken|maxrewardrecipient|rewardtype|nonce",
		fields: []field{
			req("owner", address), req("title", text(255)), send("description", text(2048)),
			req("startdate", unixSeconds), req("enddate", unixSeconds),
			req("reward", whole("amount", 50, true)), req("rewardtoken", tokenID),
			req("maxrewardrecipient", upTo(maxInt64)), req("rewardtype", oneOf("10", "20")),
			req("url", webURL(2082)), req("query", jsonText(listText, voteQuestions)), opt("sign_need", flag),
		},
		check:   checkVote,
		unbound: []string{"the poll's id, which the bridge makes up"},
		note:    "each submission takes reward*maxrewardrecipient again, with whatever questions and dates it brings; " + notRenewed,
	},
	{
		name: "mrc030_join_voter", standard: "MRC030", method: "POST", path: "/mrc030/{mrc030key}",
		signer: "voter", text: "voter|mrc030id",
		fields: []field{
			{name: "mrc030id", kind: mrc030ID, node: pathToo}, req("voter", address),
			req("answer", jsonText(listText, voteAnswers)), opt("voteCreatorSign", foreignSignature),
		},
		also: []string{"mrc030_join_creator"},
		note: "the answer is not signed: whoever submits the vote chooses it; a poll made with sign_need 1 also asks for its creator's voteCreatorSign",
	},
	{
		name: "mrc030_join_creator", standard: "MRC030", method: "POST", path: "/mrc030/{mrc030key}", signature: "voteCreatorSign",
		signer: "state:mrc030.creator", text: "voter|mrc030id",
		fields: []field{
			{name: "mrc030id", kind: mrc030ID, node: pathToo}, req("voter", address),
			req("answer", jsonText(listText, voteAnswers)), wait("signature", foreignSignature),
		},
		also: []string{"mrc030_join_voter"},
		note: "the poll creator's half of a vote, the same text as the voter's; signature is the voter's",
	},
	{
		name: "mrc100_payment", standard: "MRC100", method: "POST", path: "/mrc100/payment",
		nonce: "userlist[].tkey", signature: "userlist[].signature",
		signer: "address", text: "address|to|token|amount|nonce",
		// The node takes a userlist of 1 to 32 players, each with a signature of
		// its own. A request states the one entry that its wallet signs.
		fields: []field{
			req("address", address), req("amount", amountOrZero), req("to", address), req("token", tokenID),
			opt("tag", text(2048)), opt("gameid", text(64)), opt("gamememo", text(2048)), opt("memo", text(2048)),
		},
		check: differ("address", "to"),
		form:  paymentForm,
		also:  []string{"transfer"},
		note:  "the answer's userlist has this one player; whoever submits it puts up to 32 of them in one list; it can be submitted as a plain transfer",
	},
	{
		name: "mrc100_reward", standard: "MRC100", method: "POST", path: "/mrc100/reward", nonce: "tkey",
		signer: "from", text: "token|userlist|nonce", join: []string{"address", "amount", "tag"},
		fields: []field{
			req("from", address), req("token", tokenID), req("userlist", jsonText(listText, rewardList)),
			send("gameid", text(64)), send("gamememo", text(2048)),
		},
		check:   notAmong("from", "userlist", "address"),
		unbound: []string{"userlist[].memo"},
		// token|address|amount|tag|nonce reads as token|url|info|image|nonce, to
		// which the chaincode sets no form; it holds if from owns the token.
		alsoOne: []string{"token_update"},
		note:    "a reward to one player that the token's owner signs can be submitted as a token_update",
	},
	{
		name: "mrc100_log", standard: "MRC100", method: "POST", path: "/mrc100/log/{tkey}", nonce: "tkey",
		broken: "the published bridge fails on a variable that it never sets",
		signer: "logger", text: "token|logger|log|nonce",
		fields:  []field{req("token", tokenID), req("logger", address), req("log", text(2048))},
		unbound: []string{"the record's key, which the bridge makes up"},
		note:    notRenewed,
	},
	{
		name: "mrc400_create", standard: "MRC400", ledger: mainnet, method: "POST", path: "/mrc400", nonce: "tkey",
		signer: "owner", text: "owner|name|url|imageurl|category|itemurl|itemimageurl|data|nonce",
		fields: []field{
			req("owner", address), req("name", text(128)), req("url", webURL(255)), req("imageurl", webURL(255)),
			req("allowtoken", tokenID), req("category", text(64)), req("description", text(4096)),
			req("itemurl", webURL(255)), req("itemimageurl", webURL(255)), opt("data", text(4096)),
		},
	},
	{
		name: "mrc400_create", standard: "MRC400", ledger: testnet, method: "POST", path: "/mrc400", nonce: "tkey",
		signer: "owner", text: "owner|name|url|imageurl|category|itemurl|itemimageurl|partner|data|nonce",
		fields: []field{
			req("owner", address), req("name", text(128)), req("url", webURL(255)), req("imageurl", webURL(255)),
			opt("allowtoken", tokenID), opt("itemurl", webURL(255)), opt("itemimageurl", webURL(255)),
			opt("category", text(64)), opt("description", text(40960)), opt("socialmedia", jsonText(40960, socialMedia)),
			opt("partner", jsonText(4096, partners)), opt("data", text(40960)),
		},
	},
	{
		name: "mrc400_update", standard: "MRC400", ledger: mainnet, method: "PUT", path: "/mrc400/{mrc400id}", nonce: "tkey",
		broken: "bridge and chaincode of the main branches disagree on allowtoken",
		signer: "state:mrc400.owner", text: "mrc400id|name|url|imageurl|category|description|itemurl|itemimageurl|data|nonce",
		fields: []field{
			req("mrc400id", mrc400ID), opt("name", text(128)), req("url", webURL(255)), req("imageurl", webURL(255)),
			req("allowtoken", tokenID), opt("category", text(64)), opt("description", text(4096)),
			opt("itemurl", webURL(255)), opt("itemimageurl", webURL(255)), opt("data", text(4096)),
		},
		fixed: []Field{{"socialmedia", ""}, {"partner", ""}},
		note:  "what is left out stays as it is",
	},
	{
		name: "mrc400_update", standard: "MRC400", ledger: testnet, method: "PUT", path: "/mrc400/{mrc400id}", nonce: "tkey",
		signer: "state:mrc400.owner", text: "mrc400id|name|url|imageurl|category|itemurl|itemimageurl|partner|data|nonce",
		fields: []field{
			req("mrc400id", mrc400ID), req("name", text(128)), req("url", webURL(255)), req("imageurl", webURL(255)),
			opt("allowtoken", tokenID), opt("itemurl", webURL(255)), opt("itemimageurl", webURL(255)),
			opt("category", text(64)), send("description", text(40960)), send("socialmedia", jsonText(40960, socialMedia)),
			opt("partner", jsonText(4096, partners)), opt("data", text(40960)),
		},
		note: "what is left out is cleared",
	},
	{
		name: "mrc401_create", standard: "MRC401", ledger: mainnet, method: "POST", path: "/mrc401/{mrc400id}", nonce: "tkey",
		signer: "state:mrc400.owner", text: "mrc400id|itemdata|nonce",
		fields: []field{
			req("mrc400id", mrc400ID), req("creator", address), req("itemdata", jsonText(listText, mainnetNewItems)),
		},
		also: []string{"mrc401_update"},
		note: "the node demands creator, the chaincode of this branch ignores it",
	},
	{
		name: "mrc401_create", standard: "MRC401", ledger: testnet, method: "POST", path: "/mrc401/{mrc400id}", nonce: "tkey",
		signer: "creator", text: "mrc400id|itemdata|nonce",
		fields: []field{
			req("mrc400id", mrc400ID), req("creator", address), req("itemdata", jsonText(listText, testnetNewItems)),
		},
		also: []string{"mrc401_update"},
	},
	{
		name: "mrc401_update", standard: "MRC401", ledger: mainnet, method: "PUT", path: "/mrc401/{mrc400id}", nonce: "tkey",
		signer: "state:mrc400.owner", text: "mrc400id|itemdata|nonce",
		fields: []field{
			req("mrc400id", mrc400ID), req("creator", address), req("itemdata", jsonText(listText, mainnetItemUpdates)),
		},
		also: []string{"mrc401_create"},
		note: "the node demands creator, the chaincode of this branch ignores it",
	},
	{
		name: "mrc401_update", standard: "MRC401", ledger: testnet, method: "PUT", path: "/mrc401/{mrc400id}", nonce: "tkey",
		signer: "creator", text: "mrc400id|itemdata|nonce",
		fields: []field{
			req("mrc400id", mrc400ID), req("creator", address), req("itemdata", jsonText(listText, testnetItemUpdates)),
		},
		also: []string{"mrc401_create"},
	},
	{
		name: "mrc401_transfer", standard: "MRC401", method: "POST", path: "/mrc401/transfer/{mrc401id}", nonce: "tkey",
		signer: "fromAddr", text: "fromAddr|toAddr|mrc401id|nonce",
		fields: []field{req("mrc401id", mrc401ID), req("fromAddr", address), req("toAddr", address)},
		check:  differ("fromAddr", "toAddr"),
	},
	itemCall(mainnet, "sell", mainnetSales),
	itemCall(testnet, "sell", testnetSales),
	itemCall(mainnet, "unsell", mainnetItems),
	itemCall(testnet, "unsell", testnetItems),
	{
		name: "mrc401_buy", standard: "MRC401", method: "POST", path: "/mrc401/buy/{mrc401id}", nonce: "tkey",
		signer: "buyer", text: "mrc401id|nonce",
		fields:  []field{req("mrc401id", mrc401ID), req("buyer", address)},
		also:    []string{"mrc401_melt"},
		unbound: []string{"sell_price and sell_token of the item at commit time"},
		note:    "the price is not signed: a change of it between signing and commit is paid",
	},
	{
		name: "mrc401_melt", standard: "MRC401", method: "POST", path: "/mrc401/melt/{mrc401id}", nonce: "tkey",
		signer: "state:mrc401.owner", text: "mrc401id|nonce",
		fields: []field{req("mrc401id", mrc401ID)},
		also:   []string{"mrc401_buy"},
		note:   "destroys the item; the one-time key is renewed only when a reserve is paid out",
	},
	brokenOnMainnet(itemCall(mainnet, "auction", mainnetAuctions, buyNow("itemdata", "start", "buynow"))),
	itemCall(testnet, "auction", testnetAuctions, buyNow("itemdata", "auction_start_price", "auction_buynow_price")),
	itemCall(mainnet, "unauction", mainnetItems),
	itemCall(testnet, "unauction", testnetItems),
	{
		name: "mrc401_bid", standard: "MRC401", ledger: mainnet, method: "POST", path: "/mrc401/bid/{mrc401id}", nonce: "tkey",
		signer: "buyer", text: "mrc401id|amount|token|nonce",
		fields: []field{req("mrc401id", mrc401ID), req("buyer", address), req("amount", amount), req("token", tokenID)},
		note:   "on this branch a bid at the buy-now price always fails",
	},
	{
		name: "mrc401_bid", standard: "MRC401", ledger: testnet, method: "POST", path: "/mrc401/bid/{mrc401id}", nonce: "tkey",
		signer: "buyer", text: "mrc401id|amount|nonce",
		fields:  []field{req("mrc401id", mrc401ID), req("buyer", address), req("amount", amount)},
		unbound: []string{"payment token of the auction"},
	},
	{
		name: "mrc402_create", standard: "MRC402", method: "POST", path: "/mrc402", nonce: "tkey",
		signer: "creator", text: "creator|name|creatorcommission|totalsupply|decimal|url|imageurl|shareholder|initialreserve|expiredate|" +
			"data|information|socialmedia|copyright_registration_country|copyright_registrar|copyright_registration_number|nonce",
		fields: []field{
			req("creator", address), req("name", text(128)), req("creatorcommission", commission),
			req("totalsupply", upTo("99999999")), req("decimal", oneOf("0")), req("url", webURL(255)), req("imageurl", webURL(255)),
			opt("shareholder", jsonText(1024, shareholders)), opt("initialreserve", jsonText(1024, dict(5, tokenID, amount))),
			req("expiredate", whole("time", 12, true)), opt("data", text(40960)), opt("information", text(40960)),
			opt("socialmedia", text(40960)), opt("copyright_registration_country", country),
			opt("copyright_registrar", text(128)), opt("copyright_registration_number", text(64)),
		},
		note: "an initialreserve of amount per item takes amount*totalsupply from the creator",
	},
	{
		name: "mrc402_update", standard: "MRC402", method: "PUT", path: "/mrc402/update/{mrc402id}", nonce: "tkey",
		signer: "state:mrc402.creator", text: "mrc402id|url|data|information|socialmedia|" +
			"copyright_registration_country|copyright_registrar|copyright_registration_number|nonce",
		fields: []field{
			req("mrc402id", mrc402ID), req("url", webURL(255)), opt("data", text(40960)), opt("information", text(40960)),
			opt("socialmedia", text(40960)), opt("copyright_registration_country", country),
			opt("copyright_registrar", text(128)), opt("copyright_registration_number", text(64)),
		},
		note: "data, information and socialmedia left out are cleared; the copyright fields can be set once",
	},
	{
		name: "mrc402_burn", standard: "MRC402", method: "PUT", path: "/mrc402/burn/{mrc402id}", nonce: "tkey",
		signer: "state:mrc402.creator", text: "mrc402id|amount|memo|nonce",
		fields: []field{req("mrc402id", mrc402ID), req("amount", amount), opt("memo", text(1024))},
		also:   []string{"mrc402_mint"},
		note:   "whoever submits it can turn it into a mint of the same amount",
	},
	{
		name: "mrc402_mint", standard: "MRC402", method: "PUT", path: "/mrc402/mint/{mrc402id}", nonce: "tkey",
		signer: "state:mrc402.creator", text: "mrc402id|amount|memo|nonce",
		fields: []field{req("mrc402id", mrc402ID), req("amount", amount), opt("memo", text(1024))},
		also:   []string{"mrc402_burn"},
		note:   "whoever submits it can turn it into a burn of the same amount",
	},
	{
		name: "mrc402_transfer", standard: "MRC402", method: "POST", path: "/mrc402/transfer/{mrc402id}", nonce: "tkey",
		signer: "fromAddr", text: "fromAddr|toAddr|amount|mrc402id|nonce",
		fields: []field{
			req("mrc402id", mrc402ID), req("fromAddr", address), req("toAddr", address), req("amount", amount),
			send("tag", text(2048)), send("memo", text(2048)),
		},
		check: differ("fromAddr", "toAddr"),
	},
	{
		name: "mrc402_melt", standard: "MRC402", method: "POST", path: "/mrc402/melt/{mrc402id}", nonce: "tkey",
		signer: "address", text: "mrc402id|address|amount|nonce",
		fields: []field{req("mrc402id", mrc402ID), req("address", address), req("amount", amount)},
		note:   "pays out the reserve; allowed when expiredate is 0 or reached",
	},
	{
		name: "mrc402_sell", standard: "MRC402", method: "POST", path: "/mrc402/sell/{mrc402id}", nonce: "tkey",
		signer: "address", text: "address|amount|mrc402id|price|token|platform_name|platform_url|platform_address|platform_commission|nonce",
		fields: slices.Concat([]field{
			req("mrc402id", mrc402ID), req("address", address), req("amount", amount), req("price", price), req("token", tokenID),
		}, platform),
	},
	{
		name: "mrc402_unsell", standard: "MRC402", method: "POST", path: "/mrc402/unsell/{mrc402dexid}", nonce: "tkey",
		signer: "state:dex.seller", text: "mrc402dexid|nonce",
		fields: []field{req("mrc402dexid", mrc402DexID)},
		also:   []string{"mrc402_unauction"},
	},
	{
		name: "mrc402_buy", standard: "MRC402", method: "POST", path: "/mrc402/buy/{mrc402dexid}", nonce: "tkey",
		signer: "address", text: "mrc402dexid|address|amount|nonce",
		fields:  []field{req("mrc402dexid", mrc402DexID), req("address", address), req("amount", amount)},
		also:    []string{"mrc402_bid"},
		unbound: []string{storedOrder},
	},
	{
		name: "mrc402_auction", standard: "MRC402", method: "POST", path: "/mrc402/auction/{mrc402id}", nonce: "tkey",
		signer: "address", text: "address|amount|mrc402id|auction_start_price|token|auction_bidding_unit|auction_buynow_price|" +
			"auction_start_date|auction_end_date|platform_name|platform_url|platform_address|platform_commission|nonce",
		fields: slices.Concat(
			[]field{req("mrc402id", mrc402ID), req("address", address), req("amount", amount)}, auctionFields, platform),
		check: checkAuction,
	},
	{
		name: "mrc402_unauction", standard: "MRC402", method: "POST", path: "/mrc402/unauction/{mrc402dexid}", nonce: "tkey",
		signer: "state:dex.seller", text: "mrc402dexid|nonce",
		fields: []field{req("mrc402dexid", mrc402DexID)},
		also:   []string{"mrc402_unsell"},
	},
	{
		name: "mrc402_bid", standard: "MRC402", method: "POST", path: "/mrc402/bid/{mrc402dexid}", nonce: "tkey",
		signer: "address", text: "mrc402dexid|address|amount|nonce",
		fields:  []field{req("mrc402dexid", mrc402DexID), req("address", address), req("amount", amount)},
		also:    []string{"mrc402_buy"},
		unbound: []string{storedAuction},
	},
	{name: "mrc410_create", standard: "MRC410", dead: notOnLedger},
	{name: "mrc800_create", standard: "MRC800", dead: notOnLedger},
	{name: "mrc800_update", standard: "MRC800", dead: notOnLedger},
	{name: "mrc800_give", standard: "MRC800", dead: notOnLedger},
	{name: "mrc800_take", standard: "MRC800", dead: notOnLedger},
	{name: "mrc800_transfer", standard: "MRC800", dead: notOnLedger},
	{name: "mrc040_create", standard: "MRC040", dead: notOnLedger},
	{name: "mrc040_cancel", standard: "MRC040", dead: notOnLedger},
	{name: "mrc040_exchange", standard: "MRC040", dead: notOnLedger},
	{name: "exchange_from", standard: "MRC010", dead: notOnLedger},
	{name: "exchange_to", standard: "MRC010", dead: notOnLedger},
	createTrade("creator", "buyer"),
	createTrade("buyer", "creator"),
}

var (
	tokenName = kind{name: "text", must: "text that does not begin with [",
		is: func(s string) bool { return s[0] != '[' && text(40960).is(s) }}

	// The node refuses a key of letters and digits alone, the bridge one with
	// anything but letters, digits and _: so it has to hold a _.
	referenceKey = kind{name: "word", must: "at most 64 letters, digits and _, at least one of them _",
		is: isReferenceKey}

	tokenOrder = slices.Concat([]field{
		req("address", address), req("amount", amount), req("mrc010id", tokenID), req("price", price), req("token", tokenID),
	}, platform, []field{
		opt("min_trade_unit", oneOf("1", "10", "100", "1000", "10000", "100000", "1000000", "10000000", "100000000")),
	})
)

// itemCall is one of the four calls on a list of mrc401 items. Mainnet's form
// also names the project that all of them belong to.
func itemCall(ledger, verb string, items *shape, more ...check) operation {
	op := operation{
		name: "mrc401_" + verb, standard: "MRC401", ledger: ledger, method: "POST", path: "/mrc401/" + verb, nonce: "tkey",
		signer: "seller", text: "seller|itemdata|nonce",
		fields: []field{req("seller", address), req("itemdata", jsonText(listText, items))},
		note:   itemJSONOnly,
	}
	if ledger == mainnet {
		op.fields = []field{op.fields[0], req("mrc400id", mrc400ID), op.fields[1]}
		more = append(more, ofProject("itemdata", "mrc400id"))
	}
	op.check = all(more...)
	for _, other := range []string{"sell", "unsell", "auction", "unauction"} {
		if other != verb {
			op.also = append(op.also, "mrc401_"+other)
		}
	}
	// seller|itemdata|nonce reads as owner|name|nonce too: to the chaincode a
	// token's name is any text, and anyone can park a description so named.
	op.also = append(op.also, "token_register")
	return op
}

func brokenOnMainnet(op operation) operation {
	op.broken = "the chaincode of this branch fails after it has checked the signature"
	return op
}

// createTrade is one side of the call that creates an item and sells it, which
// its creator and its buyer both sign.
func createTrade(self, other string) operation {
	return operation{
		name: "mrc401_createtrade_" + self, standard: "MRC401", ledger: testnet,
		method: "POST", path: "/mrc401/createtrade/{mrc400id}", nonce: self + "Nonce", signature: self + "Signature",
		signer: self, text: "mrc400id|itemdata|buyer|price|token|nonce",
		fields: slices.Concat([]field{
			req("mrc400id", mrc400ID), req("creator", address), req("itemdata", jsonText(listText, testnetNewItem)),
			req("buyer", address), req("price", itemPrice), req("token", tokenID),
		}, platform, []field{
			wait(other+"Nonce", oneTimeKey), wait(other+"Signature", foreignSignature),
		}),
		check: differ("creator", "buyer"),
		note:  "one half of a call that creator and buyer both sign; neither half holds the platform's commission, up to 10 percent to any address",
	}
}
