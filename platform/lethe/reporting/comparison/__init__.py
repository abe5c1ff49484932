"""What a report says about a comparison: the papers' tables and drawings from `StudyRecord.members`."""
