"""What all pages share: they load nothing, and nothing that stands in them can be taken for markup or for code."""

import json
import re

from tinygen import markup


def test_a_page_may_load_nothing():
    head = markup.head("a < b", "p{}")
    assert "<title>a &lt; b</title>" in head
    assert "default-src 'none'" in head
    allowed = re.search('content="(default-src[^"]*)"', head)[1]
    assert "http" not in allowed
    assert "'self'" not in allowed
    assert head.index("Content-Security-Policy") < head.index("<style>")


def test_text_stays_text():
    assert markup.text("<b a='1'>&") == "&lt;b a=&#x27;1&#x27;&gt;&amp;"
    assert markup.text("not UTF-8: \udcff") == "not UTF-8: \\udcff"


def test_data_cannot_end_the_element_in_which_it_stands():
    value = {"name": "</script><script>alert(1)</script>", "numbers": [1, 2.5]}
    written = markup.data(value)
    assert written.count("</script>") == 1
    assert json.loads(re.search(r">(.*)</script>", written)[1]) == value
