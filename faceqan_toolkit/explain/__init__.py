"""Explanations of scores.

explanation: traces the attack on a face; writes its JSON, its picture, a run's contact sheet.
pictures: draws them.
"""
