"""The script that is submitted, alone in its folder."""
