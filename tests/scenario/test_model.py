"""The protocol of window, spool, cursor and answers holds in every state it can reach; a broken one is found out."""
import pytest

import model


@pytest.mark.plain
@pytest.mark.parametrize('check', [
    pytest.param(check, id=check.name, marks=[pytest.mark.long] if check.full else []) for check in model.CHECKS])
def test_model(check):
    result = check.run()
    model.keep(result)
    assert result['result'] in model.GOOD, result
