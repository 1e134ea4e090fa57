"""Which domain and which network, by the environment's word."""

from __future__ import annotations

import pytest

from videogem_ros.adapters.dds.configuration import configuration, domain_id
from videogem_ros.errors import InvalidValueError


@pytest.mark.parametrize(("text", "domain"), [(None, 0), ("", 0), ("7", 7), ("232", 232)])
def test_the_domain_is_that_of_ros(text: str | None, domain: int) -> None:
    assert domain_id({} if text is None else {"ROS_DOMAIN_ID": text}) == domain


@pytest.mark.parametrize("text", ["-1", "233", "x", "1.0", "٣"])
def test_other_domains_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="ROS_DOMAIN_ID"):
        domain_id({"ROS_DOMAIN_ID": text})


def test_the_users_configuration_wins_over_the_defaults_and_the_interface_over_both() -> None:
    user = "<CycloneDDS/>"
    defaults, middle, last = configuration("eth1", {"CYCLONEDDS_URI": user}).split(",")
    assert "65500B" in defaults
    assert middle == user
    assert 'name="eth1"' in last


@pytest.mark.parametrize(
    "environment",
    [{"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, {"ROS_LOCALHOST_ONLY": "1"}],
)
def test_a_ros_that_stays_on_the_machine_is_followed(environment: dict[str, str]) -> None:
    assert "localhost" in configuration(None, environment)
    assert "localhost" not in configuration(None, {})
