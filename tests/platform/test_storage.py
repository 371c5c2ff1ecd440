def test_smoke(storage, redis_client):
    storage.put("a/b", b"x")
    assert storage.get("a/b") == b"x"
    assert redis_client.ping()
    assert [s.key for s in storage.list("a/")] == ["a/b"]
    assert storage.delete_prefix("a/") == 1
    assert not storage.exists("a/b")
